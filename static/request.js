// One photo to the server and its answer back: with progress, and patience while it is busy.

const TRIES = 5;
const MOST_PATIENCE_S = 10;

export class ServerError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/**
 * Send a photo, and again while the server is busy. Resolves to `{answer, times, ms}`: JSON or what
 * was accepted, how long it took the server, step by step, and how long in all, in milliseconds.
 */
export async function ask(url, photo, options) {
  const { signal, accept = "application/json", onProgress = () => {}, onWait = () => {} } = options;
  for (let attempt = 1; ; attempt += 1) {
    const began = performance.now();
    const request = await send(url, photo, { signal, accept, onProgress });
    const ms = performance.now() - began;
    if (request.status === 200) {
      const json = accept === "application/json";
      const answer = json ? JSON.parse(await request.response.text()) : request.response;
      signal.throwIfAborted(); // it may have been cancelled while it was read
      return { answer, times: serverTimes(request), ms };
    }
    const patience = Number(request.getResponseHeader("Retry-After"));
    const worthWaiting = request.status === 503 && patience && patience <= MOST_PATIENCE_S;
    if (!worthWaiting || attempt === TRIES) throw await failure(request);
    onWait(patience);
    await pause(patience * 1000, signal);
  }
}

// Not fetch(), which does not tell how much has been sent.
function send(url, photo, { signal, accept, onProgress }) {
  const body = new FormData();
  body.append("file", photo, photo.name);
  const request = new XMLHttpRequest();
  return new Promise((resolve, reject) => {
    const abort = () => request.abort();
    request.upload.onprogress = ({ loaded, total }) => onProgress(loaded / total);
    request.onload = () => resolve(request);
    request.onerror = () => reject(new ServerError("The server cannot be reached.", 0));
    request.onabort = () => reject(signal.reason);
    request.onloadend = () => signal.removeEventListener("abort", abort);
    signal.throwIfAborted();
    signal.addEventListener("abort", abort);
    request.open("POST", url);
    request.setRequestHeader("Accept", accept);
    request.responseType = "blob"; // also of a problem, whatever was accepted
    request.send(body);
  });
}

async function failure(request) {
  let detail;
  try {
    detail = JSON.parse(await request.response.text()).detail;
  } catch {
    // a proxy's own page, which is not for people
  }
  return new ServerError(detail ?? `The server answered ${request.status}.`, request.status);
}

function serverTimes(request) {
  const header = request.getResponseHeader("Server-Timing") ?? "";
  return [...header.matchAll(/(\w+);dur=([\d.]+)/g)].map(([, step, ms]) => [step, Number(ms)]);
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
