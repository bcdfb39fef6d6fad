// Both photos of a match side by side: the features of each shared visual word, coloured by its share of the score.

import { closable, element, outlines, perCent, showProblem, svg } from './dom.js';

const LISTED = 40; // Words in the list.
const LINED = 24; // Words whose locations are joined by lines if nothing was verified.
const PAIRS = 60; // Most lines of one word.
const GAP = 12;
// From pale blue to yellow to red, each mark with a dark rim: a scale from light to dark is invisible on photos.
const COLOURS = ['#9ecae1', '#c7e9b4', '#fee08b', '#fdae61', '#f46d43', '#e31a1c'];

// A dialog that shows one match at a time.
//
// A match is a document of match_document in delf_d2r/report/match_views.py. The two photos are addresses, or
// `{ missing: reason }` if there is no photo, in which case features are drawn on an empty background.
export class MatchView {
  // `onStep` is called with one of the neighbours given to `show`.
  constructor(onStep) {
    this.body = element('div', { id: 'match-body', className: 'match-body' });
    this.heading = element('h2', { id: 'match-heading' }, 'Why it matched');
    this.summary = element('p', { id: 'match-summary', className: 'quiet' });
    const button = (sign, label, properties) =>
      element('button', { type: 'button', 'aria-label': label, ...properties }, sign);
    this.steps = [button('←', 'Previous match', { id: 'match-previous' }),
      button('→', 'Next match', { id: 'match-next' })];
    const close = button('✕', 'Close', { className: 'close', 'data-close': '' });
    this.dialog = element('dialog', { id: 'match', className: 'wide', 'aria-labelledby': 'match-heading' },
      element('div', { className: 'dialog-head' }, this.heading, this.summary,
        element('div', { className: 'steps' }, ...this.steps, close)),
      this.body);
    document.body.append(this.dialog);
    this.steps.forEach((step, side) => step.addEventListener('click', () => onStep(this.neighbours[side])));
    closable(this.dialog);
    this.dialog.addEventListener('keydown', (event) => {
      const side = ['ArrowLeft', 'ArrowRight'].indexOf(event.key);
      if (side < 0 || event.target.matches('input')) return;
      if (this.neighbours[side] !== undefined) onStep(this.neighbours[side]);
      event.preventDefault();
    });
    new ResizeObserver(() => this.match && this.#draw()).observe(this.body);
  }

  // Shows the result of the promise `load`: `{ match, photos }` and perhaps `label`, `note`, and `fused`, the text of a
  // fused score with its two parts. The neighbours before and after may be undefined.
  async show(heading, neighbours, load) {
    this.neighbours = neighbours;
    this.steps.forEach((button, side) => { button.disabled = neighbours[side] === undefined; });
    this.heading.textContent = heading;
    this.summary.textContent = 'Comparing…';
    this.match = null;
    this.body.classList.add('waiting');
    if (!this.dialog.open) {
      this.body.replaceChildren();
      this.dialog.showModal();
    }
    this.wanted = load;
    try {
      const { match, photos, label, note, fused } = await load();
      if (load !== this.wanted) return; // Another match was opened in the meantime.
      this.photos = photos;
      this.match = match;
      this.fused = fused;
      this.chosen = this.box = null;
      this.summary.textContent = [label, ...describe(match, fused), note].filter(Boolean).join(' · ');
      this.#build();
      this.#draw();
    } catch (error) {
      if (load !== this.wanted) return;
      this.summary.textContent = '';
      const problem = element('div', { className: 'problem', 'role': 'alert' });
      showProblem(problem, error);
      this.body.replaceChildren(problem);
    } finally {
      if (load === this.wanted) this.body.classList.remove('waiting');
    }
  }

  #build() {
    const { match } = this;
    this.stage = element('div', { className: 'match-stage' });
    this.options = {
      features: check('Features', true), lines: check('Lines', true), boxes: check('Boxes', true),
    };
    for (const { input } of Object.values(this.options)) input.addEventListener('change', () => this.#draw());
    const top = match.words[0]?.share || 1;
    const listed = match.words.slice(0, LISTED).filter((word) => word.share > 0);
    const words = listed.map((word, rank) => {
      const bar = element('i', {});
      bar.style.width = `${100 * word.share / top}%`;
      bar.style.background = colour(word.share / top);
      const button = element('button', { type: 'button', className: 'word', 'aria-pressed': 'false' },
        element('b', {}, String(rank + 1)), element('span', { className: 'track' }, bar),
        element('span', { className: 'number' }, perCent(word.share)));
      button.title = `Visual word ${word.word}: ${word.query.length} and ${word.index.length} features`;
      button.addEventListener('click', () => this.#choose(this.chosen === word ? null : word, button));
      button.addEventListener('mouseenter', () => this.#draw(word));
      button.addEventListener('mouseleave', () => this.#draw());
      return element('li', {}, button);
    });
    const side = element('div', { className: 'match-side' });
    if (words.length) {
      const marked = match.words.length < match.num_words ? `, the largest ${match.words.length} marked.` : '.';
      side.append(
        element('h3', {}, this.fused ? 'Share of the local similarity' : 'Share of the score'),
        element('p', { className: 'quiet' }, shared(match), `${marked} These ${words.length} carry`
          + ` ${perCent(listed.reduce((sum, word) => sum + word.share, 0))}:`),
        element('ol', { className: 'words' }, ...words));
    } else {
      const none = match.num_words ? `${shared(match)}, but none adds to the score.` : 'No shared visual words.';
      side.append(element('p', { className: 'quiet' }, none));
    }
    if (this.fused) {
      side.append(element('p', { className: 'quiet unmarked' },
        'The global part compares one descriptor of each photo, so it has no places to mark.'));
    }
    const regions = match.regions.map((region, number) => ({ ...region, number })).filter(({ share }) => share > 0)
      .sort((a, b) => b.share - a.share).slice(0, 6);
    if (regions.length) {
      side.append(element('h3', {}, 'Seen in its boxes'),
        element('p', { className: 'quiet' }, 'An attribution: words that a box shows. Boxes overlap.'),
        element('ul', { className: 'regions' }, ...regions.map((region) => this.#regionItem(region))));
    }
    const scale = element('span', { className: 'scale', 'aria-hidden': 'true' },
      ...COLOURS.map((value) => {
        const step = element('i', {});
        step.style.background = value;
        return step;
      }));
    const yellow = [isPart(match.query_box) ? 'searched' : '', match.best_region ? 'matches best' : '']
      .filter(Boolean).join(' or ');
    const frames = [
      yellow ? swatch('swatch best', yellow) : '',
      otherBoxes(match).length ? swatch('swatch', yellow ? 'other boxes' : 'boxes') : '',
    ];
    const controls = element('div', { className: 'match-controls' },
      ...Object.values(this.options).map(({ label }) => label), ...frames.filter(Boolean),
      element('span', { className: 'legend-scale quiet' }, 'small share', scale, 'large'));
    this.body.replaceChildren(element('div', { className: 'match-main' }, this.stage, controls), side);
  }

  #regionItem({ number, box, share }) {
    const button = element('button', { type: 'button', className: 'region', 'aria-pressed': 'false' },
      `Box ${number + 1}`, element('span', { className: 'number' }, perCent(share)));
    button.addEventListener('click', () => {
      this.box = this.box === box ? null : box;
      this.#press('.region', this.box && button);
      this.#draw();
    });
    button.addEventListener('mouseenter', () => this.#draw(null, box));
    button.addEventListener('mouseleave', () => this.#draw());
    return element('li', {}, button);
  }

  #press(selector, button) {
    for (const other of this.body.querySelectorAll(selector)) other.setAttribute('aria-pressed', other === button);
  }

  #choose(word, button) {
    this.chosen = word;
    this.#press('.word', word && button);
    this.#draw();
    // On a narrow screen the photos are above the list.
    if (word) this.stage.scrollIntoView({ block: 'nearest' });
  }

  // Draws all words, or only the word under the pointer or chosen; a box is highlighted likewise.
  #draw(pointed = null, pointedBox = null) {
    if (!this.stage) return;
    const { match, options } = this;
    const width = this.stage.clientWidth;
    if (!width) return;
    const chosen = pointed ?? this.chosen;
    const [query, index] = layout(width, 0.62 * window.innerHeight, match);
    const total = Math.max(query.y + query.height, index.y + index.height);
    const areas = [query, index];
    const parts = areas.map((area, side) => ground(this.photos[side], area));
    const strong = pointedBox ?? this.box;
    if (options.boxes.input.checked) {
      if (isPart(match.query_box)) parts.push(frame(query, [match.query_box], 'box best'));
      parts.push(frame(index, otherBoxes(match), 'box'));
      if (match.best_region) parts.push(frame(index, [match.boxes[match.best_region - 1]], 'box best'));
    }
    if (strong) parts.push(frame(index, [strong], 'box best'));
    const top = match.words[0]?.share || 1;
    const scale = Math.min(1, Math.max(0.55, query.width / 400));
    const shown = chosen ? [chosen] : match.words.filter((word) => word.share > 0);
    if (options.lines.input.checked) parts.push(...this.#lines(chosen, shown, query, index, top));
    if (options.features.input.checked) {
      // The largest share last, so that it is on top.
      for (const word of [...shown].reverse()) {
        const fill = colour(word.share / top);
        const radius = chosen ? 6 : scale * (2.2 + 3.8 * Math.sqrt(word.share / top));
        for (const [places, area] of [[word.query, query], [word.index, index]]) {
          for (const place of places) {
            const [cx, cy] = at(place, area);
            parts.push(svg('circle', { cx, cy, r: radius, fill, class: 'feature' }));
          }
        }
      }
    }
    // The reason for a missing photo is above all marks.
    parts.push(...areas.flatMap((area, side) => absence(this.photos[side], area)));
    const text = `Query photo and ${match.name}; ${match.words.length} shared visual words are marked on both`;
    this.stage.replaceChildren(svg('svg', {
      viewBox: `0 0 ${width} ${total}`, width, height: total, 'role': 'img', 'aria-label': text,
    }, ...parts));
  }

  #lines(chosen, shown, query, index, top) {
    const { match } = this;
    const line = (from, to, attributes) => {
      const [[x1, y1], [x2, y2]] = [at(from, query), at(to, index)];
      return svg('line', { x1, y1, x2, y2, ...attributes });
    };
    if (!chosen && match.inliers.length) {
      return match.inliers.map(([from, to]) => line(from, to, { class: 'inlier' }));
    }
    const words = chosen ? shown
      : shown.filter((word) => word.query.length === 1 && word.index.length === 1).slice(0, LINED);
    return words.flatMap((word) => word.query.flatMap((from) => word.index.map((to) =>
      line(from, to, { class: 'word-line', stroke: colour(word.share / top) }))).slice(0, PAIRS));
  }
}

function describe(match, fused) {
  const { inliers, num_inliers: found, boxes, best_region: best } = match;
  const drawn = inliers.length < found ? ` (${inliers.length} drawn)` : '';
  const verified = found ? `${found} verified ${found === 1 ? 'match' : 'matches'}${drawn}` : '';
  const where = best ? `best: box ${best} of ${boxes.length}` : 'best: whole photo';
  return [fused || `score ${match.score.toPrecision(4)}`, shared(match), verified,
    best === null || !boxes.length ? '' : where];
}

const isPart = (box) => String(box) !== '0,0,1,1';
const otherBoxes = ({ boxes, best_region: best }) => boxes.filter((_, number) => number + 1 !== best);
const swatch = (className, text) =>
  element('span', { className: 'quiet' }, element('span', { className }), ` ${text}`);

const shared = ({ num_words: count }) => `${count} shared visual ${count === 1 ? 'word' : 'words'}`;

function check(text, checked) {
  const input = element('input', { type: 'checkbox', checked });
  return { input, label: element('label', { className: 'check' }, input, ` ${text}`) };
}

// Side by side at the same height if there is space, else one above the other.
function layout(width, height, { query_photo: a, index_photo: b }) {
  const [ratioA, ratioB] = [a.width / a.height, b.width / b.height];
  if (width >= 560) {
    const tall = Math.min((width - GAP) / (ratioA + ratioB), height);
    const left = (width - GAP - tall * (ratioA + ratioB)) / 2;
    return [{ x: left, y: 0, width: tall * ratioA, height: tall },
      { x: left + tall * ratioA + GAP, y: 0, width: tall * ratioB, height: tall }];
  }
  const areas = [ratioA, ratioB].map((ratio) => {
    const tall = Math.min(width / ratio, height / 2);
    return { x: (width - tall * ratio) / 2, y: 0, width: tall * ratio, height: tall };
  });
  areas[1].y = areas[0].height + GAP;
  return areas;
}

const at = ([y, x], area) => [area.x + x * area.width, area.y + y * area.height];
const colour = (share) => COLOURS[Math.min(Math.floor(share * COLOURS.length), COLOURS.length - 1)];
const frame = (area, boxes, className) => svg('g', { transform: `translate(${area.x} ${area.y})` },
  ...outlines(boxes, area.width, area.height, className));

function ground(photo, { x, y, width, height }) {
  return photo.missing ? svg('rect', { x, y, width, height, class: 'no-photo' })
    : svg('image', { href: photo, x, y, width, height });
}

function absence(photo, { x, y, width, height }) {
  return photo.missing ? [svg('text', { x: x + width / 2, y: y + height / 2, class: 'no-photo' }, photo.missing)] : [];
}
