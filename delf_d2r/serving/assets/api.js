// Talks to the server; what fails is an Error whose message and remedy are meant for the reader.

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
    throw new Problem('The server does not answer.', 'Is it still running? Then try again.');
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

export function showProblem(place, error) {
  place.hidden = !error;
  place.replaceChildren();
  if (error) place.append(element('b', {}, error.message), ` ${error.remedy ?? ''}`);
}

// An element with properties (`className`, `onclick`), attributes given as `aria-...` and children.
export function element(name, properties = {}, ...children) {
  return fill(document.createElement(name), properties, children);
}

export function svg(name, attributes = {}, ...children) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function fill(node, properties, children) {
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes('-')) node.setAttribute(key, value);
    else node[key] = value;
  }
  node.append(...children);
  return node;
}

// The outlines of boxes as one path in the frame of `width` x `height`, with a dark halo that keeps them visible.
export function outlines(boxes, width, height, className) {
  if (!boxes.length) return [];
  const d = boxes.map(([ymin, xmin, ymax, xmax]) =>
    `M${xmin * width} ${ymin * height}H${xmax * width}V${ymax * height}H${xmin * width}z`).join('');
  return [svg('path', { d, class: `${className} halo` }), svg('path', { d, class: className })];
}

export function milliseconds(seconds) {
  const value = 1000 * seconds;
  return value < 10 ? `${value.toFixed(1)} ms` : value < 1000 ? `${Math.round(value)} ms` : `${seconds.toFixed(1)} s`;
}

export const perCent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
