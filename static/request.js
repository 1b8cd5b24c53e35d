// Sends one photo to the server, reports progress, and retries while the server is busy.

const MAX_ATTEMPTS = 5;
const MAX_WAIT_S = 10;

export class ServerError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/**
 * Send a photo, and again if the server is busy. Resolves to `{answer, times, ms}`: the JSON (a Blob
 * for another `accept`), the server's steps as `[name, ms]`, and the whole time in milliseconds.
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
      signal.throwIfAborted(); // it may have been cancelled while the answer was read
      return { answer, times: serverTimes(request), ms };
    }
    const waitS = Number(request.getResponseHeader("Retry-After"));
    const canRetry = request.status === 503 && waitS && waitS <= MAX_WAIT_S;
    if (!canRetry || attempt === MAX_ATTEMPTS) throw await failure(request);
    onWait(waitS);
    await pause(waitS * 1000, signal);
  }
}

// XMLHttpRequest, because fetch() does not report how much has been sent.
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
    request.responseType = "blob"; // also for problem details, which are read as JSON below
    request.send(body);
  });
}

async function failure(request) {
  let detail;
  try {
    detail = JSON.parse(await request.response.text()).detail;
  } catch {
    // not JSON: probably a proxy's error page
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
