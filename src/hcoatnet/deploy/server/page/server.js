// Talking to the server that this page comes from.

const PATIENCE = 120_000; // milliseconds

let token = null; // nowhere but here
export const useToken = (value) => { token = value; };
export const hasToken = () => token !== null;

// Why there is no answer, in words for a person.
export class Problem extends Error {
  constructor(title, detail, { status = 0, problems = [], retryAfter = null } = {}) {
    super(title);
    Object.assign(this, { title, detail, status, problems, retryAfter });
  }
}

export const readModel = () => call("v1/model");

export async function predict(file, name, trace) {
  await checkReadable(file);
  const body = new FormData();
  body.append("photos", file, name);
  const { answers } = await call(`v1/predict?trace=${trace}`, { method: "POST", body });
  return answers[0];
}

async function call(path, options = {}) {
  const headers = token === null ? {} : { Authorization: `Bearer ${token}` };
  const clock = new AbortController();
  const alarm = setTimeout(() => clock.abort(), PATIENCE);
  try {
    const response = await fetch(path, { ...options, headers, cache: "no-store", signal: clock.signal });
    if (response.ok) return await response.json();
    throw await refusal(response);
  } catch (error) {
    if (error instanceof Problem) throw error;
    if (clock.signal.aborted) throw new Problem("No answer in time", "The server took longer than two minutes.");
    throw new Problem("The server does not answer", "It may have been stopped, or the network is gone.");
  } finally {
    clearTimeout(alarm);
  }
}

async function refusal(response) {
  const said = await response.json().catch(() => ({}));
  const seconds = Number.parseInt(response.headers.get("Retry-After"), 10);
  return new Problem(said.title ?? `The server answered ${response.status}`, said.detail ?? "It did not say why.", {
    status: response.status,
    problems: said.problems ?? [],
    retryAfter: response.status === 503 ? seconds || 2 : null,
  });
}

// A folder can be dropped like a file, and a file can be gone by now.
async function checkReadable(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    throw new Problem("This cannot be read", "It is a folder, or a file that is gone or locked. Choose the photos in it.");
  }
}
