// The request that was just made, as a line for a shell and one for Python.

export function curl(url, name, guarded) {
  // curl splits a file's name at these and trims it, unless it is quoted; "-" is its own input.
  const escaped = name.replace(/["\\]/g, "\\$&");
  const file = /[,;"\\]|^\s|\s$/.test(name) ? `"${escaped}"` : name === "-" ? "./-" : name;
  const token = guarded ? ' -H "Authorization: Bearer $TOKEN"' : "";
  return `curl${token} -F ${quoted(`file=@${file}`)} ${quoted(url)}`;
}

export function python(url, name, guarded) {
  const token = guarded ? ', headers={"Authorization": "Bearer " + os.environ["TOKEN"]}' : "";
  const file = `files={"file": open(${JSON.stringify(name)}, "rb")}`;
  const request = `requests.post(${JSON.stringify(url)}, ${file}${token})`;
  return `import os, requests; print(${request}.json())`;
}

function quoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** Copy the text of an element; where a page may not (http), select it. */
export async function copy(element, button) {
  try {
    await navigator.clipboard.writeText(element.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(element);
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = "Copy"), 2000);
}
