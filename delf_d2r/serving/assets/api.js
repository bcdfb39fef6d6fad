// Requests to the server. Failures are Errors whose message and remedy are shown to the user.

export class Problem extends Error {
  constructor(message, remedy, status = 0) {
    super(message);
    this.remedy = remedy;
    this.status = status;
  }
}

export async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Problem('The server does not answer.', 'Check that it is running, then try again.');
  }
  const body = await response.json().catch(() => null);
  if (response.ok && body !== null) return body;
  throw new Problem(body?.error ?? `The server answered ${response.status}.`, body?.remedy ?? 'Try again.',
    response.status);
}

export function put(path, value) {
  const headers = { 'Content-Type': 'application/json' };
  return request(path, { method: 'PUT', headers, body: JSON.stringify(value) });
}

export function milliseconds(seconds) {
  const value = 1000 * seconds;
  return value < 10 ? `${value.toFixed(1)} ms` : value < 1000 ? `${Math.round(value)} ms` : `${seconds.toFixed(1)} s`;
}

// Returns the address of an indexed photo, or of its thumbnail. The version makes browsers ask for a photo that was
// replaced: one that the page has shown would be shown again.
export function photoAddress({ id, version }, part = '') {
  return `/api/photo/${id}${part}?${new URLSearchParams({ version })}`;
}
