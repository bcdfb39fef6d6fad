// A photo on which one box is drawn, moved and resized, by pointer or by keyboard.
//
// Boxes are [ymin, xmin, ymax, xmax], normalised to [0, 1]. `onChange(box)` is called after every finished change.
// While the photo is loading, neither pointer nor keys change the box.

import { element, svg } from './report/dom.js';

const LEAST = 0.01; // minimum height and width, as a share of the photo
const STEP = 0.01; // of a key press, as a share of the photo
const HANDLES = [[0, 0], [0, 1], [1, 1], [1, 0]]; // corners (y, x)
const GRIP = 14; // distance in pixels within which a corner is grabbed

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const KEYS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

export class BoxEditor {
  constructor(place, { onChange, label, describedBy }) {
    this.onChange = onChange;
    this.box = null;
    this.image = element('img', { alt: '', draggable: false });
    this.shade = svg('path', { class: 'shade', 'fill-rule': 'evenodd' });
    this.halo = svg('path', { class: 'box best halo' });
    this.line = svg('path', { class: 'box best' });
    this.overlay = svg('svg', { viewBox: '0 0 1 1', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
      this.shade, this.halo, this.line);
    this.handles = HANDLES.map(() => element('i', { className: 'handle', hidden: true }));
    this.spoken = element('span', { className: 'unseen', 'aria-live': 'polite' });
    this.stage = element('div', {
      className: 'stage', tabIndex: 0, 'role': 'application', 'aria-label': label, 'aria-describedby': describedBy,
      'aria-roledescription': 'photo to draw a box on',
    }, this.image, this.overlay, ...this.handles);
    place.replaceChildren(this.stage, this.spoken);
    this.stage.addEventListener('pointerdown', (event) => this.#grab(event));
    this.stage.addEventListener('pointermove', (event) => this.#drag(event));
    this.stage.addEventListener('pointerup', () => this.#release());
    this.stage.addEventListener('pointercancel', () => this.#release());
    this.stage.addEventListener('keydown', (event) => this.#press(event));
  }

  // Shows another photo, with or without a box; resolves when it is displayed, rejects if it cannot be.
  async show(source, box = null) {
    delete this.stage.dataset.ready;
    this.drag = this.box = null;
    this.#draw();
    this.image.src = source;
    await this.image.decode();
    this.stage.dataset.ready = '';
    this.box = box;
    this.#draw();
  }

  set(box, { silent = false } = {}) {
    this.box = box;
    this.#draw();
    if (!silent) this.#tell();
  }

  clear() {
    if (this.box) this.set(null);
  }

  get #isReady() {
    return 'ready' in this.stage.dataset;
  }

  #grab(event) {
    if (event.button || !this.#isReady) return;
    event.preventDefault();
    this.stage.focus({ preventScroll: true });
    this.stage.setPointerCapture(event.pointerId);
    const [y, x] = this.#place(event);
    const before = this.box;
    const corner = before && this.#corner(event);
    if (corner) {
      const fixed = [before[corner[0] ? 0 : 2], before[corner[1] ? 1 : 3]];
      this.drag = { before, box: (to) => span(fixed, to) };
    } else if (before && y > before[0] && y < before[2] && x > before[1] && x < before[3]) {
      this.drag = { before, box: (to) => moved(before, to[0] - y, to[1] - x) };
    } else {
      this.drag = { before, box: (to) => span([y, x], to) };
    }
  }

  #drag(event) {
    if (!this.drag) {
      this.stage.dataset.over = this.box && this.#corner(event) ? 'corner' : '';
      return;
    }
    this.box = this.drag.box(this.#place(event));
    this.#draw();
  }

  #release() {
    if (!this.drag) return;
    const { before } = this.drag;
    this.drag = null;
    // A click, or a box without area, changes nothing.
    if (this.box && !isLarge(this.box)) this.box = before;
    this.#draw();
    if (String(before) !== String(this.box)) this.#tell();
  }

  #press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.#isReady) return;
    if (event.key in KEYS && this.box) {
      const [dy, dx] = KEYS[event.key].map((sign) => sign * STEP);
      const [ymin, xmin, ymax, xmax] = this.box;
      const box = event.shiftKey
        ? [ymin, xmin, clamp(ymax + dy, ymin + 2 * LEAST, 1), clamp(xmax + dx, xmin + 2 * LEAST, 1)]
        : moved(this.box, dy, dx);
      this.set(box);
    } else if (event.key === 'Enter' && !this.box) {
      this.set([0.25, 0.25, 0.75, 0.75]);
    } else if ((event.key === 'Delete' || event.key === 'Backspace') && this.box) {
      this.clear();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  #tell() {
    this.spoken.textContent = this.box
      ? `Box: top ${percent(this.box[0])}, left ${percent(this.box[1])}, bottom ${percent(this.box[2])},`
        + ` right ${percent(this.box[3])}`
      : 'No box';
    this.onChange(this.box);
  }

  #draw() {
    const box = this.box;
    const outline = box ? `M${box[1]} ${box[0]}H${box[3]}V${box[2]}H${box[1]}z` : '';
    this.shade.setAttribute('d', box ? `M0 0H1V1H0z${outline}` : '');
    this.halo.setAttribute('d', outline);
    this.line.setAttribute('d', outline);
    this.handles.forEach((handle, number) => {
      handle.hidden = !box;
      if (!box) return;
      const [bottom, right] = HANDLES[number];
      handle.style.top = `${100 * box[bottom ? 2 : 0]}%`;
      handle.style.left = `${100 * box[right ? 3 : 1]}%`;
    });
  }

  #place(event) {
    const frame = this.image.getBoundingClientRect();
    return [clamp((event.clientY - frame.top) / frame.height, 0, 1),
      clamp((event.clientX - frame.left) / frame.width, 0, 1)];
  }

  #corner(event) {
    const frame = this.image.getBoundingClientRect();
    return HANDLES.find(([bottom, right]) =>
      Math.hypot(frame.left + this.box[right ? 3 : 1] * frame.width - event.clientX,
        frame.top + this.box[bottom ? 2 : 0] * frame.height - event.clientY) < GRIP);
  }
}

const percent = (value) => `${Math.round(100 * value)} %`;
const isLarge = (box) => box[2] - box[0] >= LEAST && box[3] - box[1] >= LEAST;
const span = (a, b) => [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])];

function moved([ymin, xmin, ymax, xmax], dy, dx) {
  const y = clamp(dy, -ymin, 1 - ymax);
  const x = clamp(dx, -xmin, 1 - xmax);
  return [ymin + y, xmin + x, ymax + y, xmax + x].map((value) => clamp(value, 0, 1));
}
