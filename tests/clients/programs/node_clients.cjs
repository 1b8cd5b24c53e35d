// fetch, undici, axios and form-data: `node_clients.cjs URL FILE…` prints each response's status and
// JSON. This is not an ES module, because those do not use NODE_PATH.
const { createReadStream, readFileSync } = require("node:fs");
const http = require("node:http");
const { basename } = require("node:path");
const { Readable } = require("node:stream");
const { json } = require("node:stream/consumers");
const axios = require("axios");
const FormDataStream = require("form-data");
const undici = require("undici");

function form(path, Form = FormData) {
  const made = new Form();
  made.append("file", new Blob([readFileSync(path)]), basename(path));
  return made;
}

function streamed(path) {
  const made = new FormDataStream();
  made.append("file", createReadStream(path));
  return made;
}

function buffered(path) {
  const made = new FormDataStream();
  made.append("file", readFileSync(path), basename(path));
  return made.getBuffer();
}

async function byFetch(url, options) {
  const response = await fetch(url, { method: "POST", ...options });
  return [response.status, await response.json()];
}

async function byUndici(url, body) {
  const response = await undici.request(url, { method: "POST", body });
  return [response.statusCode, await response.body.json()];
}

// axios parses JSON, and rejects statuses of 400 and above.
async function byAxios(sent) {
  const response = await sent.catch((error) => error.response);
  return [response.status, response.data];
}

async function byHttp(send) {
  const response = await new Promise(send);
  return [response.statusCode, await json(response)];
}

const multipart = { headers: { "Content-Type": "multipart/form-data" } }; // no boundary
const WAYS = {
  "fetch form": (url, path) => byFetch(url, { body: form(path) }),
  "fetch body": (url, path) => byFetch(url, { body: readFileSync(path) }),
  "fetch chunks": (url, path) =>
    byFetch(url, { body: Readable.toWeb(createReadStream(path)), duplex: "half" }),
  "undici form": (url, path) => byUndici(url, form(path, undici.FormData)),
  "undici chunks": (url, path) => byUndici(url, createReadStream(path)),
  "axios form": (url, path) => byAxios(axios.postForm(url, { image: createReadStream(path) })),
  "axios body": (url, path) => byAxios(axios.post(url, readFileSync(path))),
  "axios chunks": (url, path) => byAxios(axios.post(url, createReadStream(path))),
  "axios header set by hand": (url, path) => byAxios(axios.post(url, form(path), multipart)),
  "axios without a boundary": (url, path) => byAxios(axios.post(url, buffered(path), multipart)),
  "form-data submitted": (url, path) =>
    byHttp((resolve, reject) =>
      streamed(path).submit(url, (error, response) => (error ? reject(error) : resolve(response))),
    ),
  "form-data in chunks": (url, path) =>
    byHttp((resolve, reject) => {
      const made = streamed(path);
      const request = http.request(url, { method: "POST", headers: made.getHeaders() }, resolve);
      made.pipe(request.on("error", reject));
    }),
};

async function main([url, ...paths]) {
  const answers = {};
  for (const [way, send] of Object.entries(WAYS)) {
    answers[way] = [];
    for (const path of paths) answers[way].push(await send(url, path));
  }
  console.log(JSON.stringify(answers));
}

main(process.argv.slice(2));
