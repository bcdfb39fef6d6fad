// Helpers for elements, shared by the served page and the report pages.

// Returns an element with properties (`className`, `onclick`), attributes named `aria-...`, and children.
export function element(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes('-')) node.setAttribute(key, value);
    else node[key] = value;
  }
  node.append(...children);
  return node;
}

export function svg(name, attributes = {}, ...children) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// Returns the outlines of boxes as one path in a frame of `width` x `height`, with a dark halo for visibility.
export function outlines(boxes, width, height, className) {
  if (!boxes.length) return [];
  const d = boxes.map(([ymin, xmin, ymax, xmax]) =>
    `M${xmin * width} ${ymin * height}H${xmax * width}V${ymax * height}H${xmin * width}z`).join('');
  return [svg('path', { d, class: `${className} halo` }), svg('path', { d, class: className })];
}

// Closes a dialog by its button and by a click outside it; Escape closes it without this function.
export function closable(dialog) {
  dialog.querySelector('[data-close]').addEventListener('click', () => dialog.close());
  dialog.addEventListener('click', (event) => {
    if (event.target === dialog) dialog.close();
  });
}

export function showProblem(place, error) {
  place.hidden = !error;
  place.replaceChildren();
  if (error) place.append(element('b', {}, error.message), ` ${error.remedy ?? ''}`);
}

export const perCent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
