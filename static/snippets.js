// The request that was just made, as a line for a shell and one for Python.

export function curl(url, name, guarded) {
  // curl itself splits a file's name at these, unless it is quoted.
  const file = /[,;"\\]/.test(name) ? `"${name.replace(/["\\]/g, "\\$&")}"` : name;
  const token = guarded ? ' -H "Authorization: Bearer $TOKEN"' : "";
  return `curl${token} -F ${quoted(`file=@${file}`)} ${quoted(url)}`;
}

export function python(url, name, guarded) {
  const token = guarded ? ', headers={"Authorization": f"Bearer {token}"}' : "";
  const file = `files={"file": open(${JSON.stringify(name)}, "rb")}`;
  return `import requests; print(requests.post(${JSON.stringify(url)}, ${file}${token}).json())`;
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
