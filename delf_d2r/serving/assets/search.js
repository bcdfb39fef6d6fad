// The search page: a query photo with its box, ranked results, and why each of them matched.

import { milliseconds, photoAddress, request } from './api.js';
import { BoxEditor } from './box_editor.js';
import { Picker } from './picker.js';
import { element, outlines, showProblem, svg } from './report/dom.js';
import { MatchView } from './report/match_view.js';

const $ = (id) => document.getElementById(id);
const TYPING_PAUSE = 500; // milliseconds between the last change of the box and the search

let limits = null;
let answer = null;
let asked = null; // the arguments of the latest search
let running = null; // its AbortController, while it runs
let pause = 0;

const editor = new BoxEditor($('editor'), {
  onChange: onBox, label: 'Query photo', describedBy: 'editor-help',
});
const picker = new Picker($('picker'), (name) => search({ indexed: name }));
const match = new MatchView((showNeighbour) => showNeighbour());

function onBox(box) {
  $('clear-box').disabled = !box;
  clearTimeout(pause);
  pause = setTimeout(() => search({ query: answer.query, box }), TYPING_PAUSE);
}

// Searches for a photo, for an indexed photo by name, or for the photo of an earlier search.
async function search(wanted) {
  const { photo, indexed, query, box = null } = asked = wanted;
  clearTimeout(pause);
  running?.abort();
  const own = running = new AbortController();
  showProblem($('problem'), null);
  setBusy(true);
  $('editor').inert = query === undefined; // No box may be drawn on a photo that is about to be replaced.
  try {
    if (photo && limits && photo.size > limits.max_upload_bytes) throw tooLarge(photo);
    const form = new FormData();
    for (const [name, value] of Object.entries({ photo, indexed, query, box: box?.map((v) => v.toFixed(5)),
      verify: $('verify').checked })) {
      if (value !== undefined && value !== null) form.append(name, value);
    }
    const found = await request('/api/search', { method: 'POST', body: form, signal: own.signal });
    const isNewPhoto = query === undefined;
    answer = found;
    showAnswer();
    if (isNewPhoto) await showQuery();
  } catch (error) {
    if (running !== own) return; // overtaken by another search
    if (query === undefined) forgetQuery();
    $('results').replaceChildren();
    $('summary').textContent = '';
    $('blank').hidden = $('legend').hidden = true;
    showProblem($('problem'), error);
  } finally {
    if (running === own) {
      running = null;
      $('editor').inert = false;
      setBusy(false);
    }
  }
}

function tooLarge(photo) {
  const [found, most] = [photo.size, limits.max_upload_bytes].map((bytes) => `${(bytes / 1e6).toFixed(1)} MB`);
  return Object.assign(new Error(`${photo.name} has ${found}, at most ${most} are accepted.`),
    { remedy: 'Reduce the photo and choose it again.' });
}

function setBusy(busy) {
  document.body.classList.toggle('busy', busy);
  $('results').setAttribute('aria-busy', busy);
  if (!busy) return;
  $('summary').textContent = 'Searching…';
  $('blank').hidden = true;
  if (!$('results').children.length) {
    const blanks = Array.from({ length: 8 }, () => element('li', { className: 'blank-card' }));
    $('results').replaceChildren(...blanks);
  }
}

async function showQuery() {
  $('drop-empty').hidden = true;
  $('editor').hidden = false;
  $('query-name').textContent = `${answer.name} · ${answer.width} × ${answer.height}`;
  $('clear-box').disabled = true;
  await editor.show(`/api/query/${answer.query}/photo`);
}

// The message about a photo that cannot be used must not stand beside another one.
function forgetQuery() {
  answer = null;
  $('drop-empty').hidden = false;
  $('editor').hidden = true;
  $('query-name').textContent = '';
  $('clear-box').disabled = true;
  $('boxes-label').hidden = true;
}

function showAnswer() {
  const { results, seconds, num_features: features } = answer;
  const total = Object.values(seconds).reduce((sum, value) => sum + value, 0);
  const parts = Object.entries(seconds).map(([part, value]) => `${part} ${milliseconds(value)}`).join(', ');
  $('summary').textContent = results.length
    ? `${results.length} of ${(limits?.images ?? 0).toLocaleString('en')} photos in ${milliseconds(total)}`
      + ` · ${features.toLocaleString('en')} features in the query`
    : '';
  $('summary').title = parts;
  const message = results.length ? 'Incomplete results.' : 'No results.';
  showProblem($('problem'), answer.note ? { message, remedy: answer.note } : null);
  const top = Math.max(...results.map((result) => result.score)) || 1;
  const own = answer; // Another answer may arrive while a match of this one is displayed.
  $('results').replaceChildren(...results.map((result, position) =>
    card(result, top, () => showMatch(own, position))));
  $('blank').hidden = true;
  $('boxes-label').hidden = !results.some((result) => result.boxes.length);
  showLegend(results);
}

// The legend of what occurs in the results.
function showLegend(results) {
  const items = [];
  const add = (mark, meaning) => items.push(element('li', {}, mark, ' ', element('span', {}, meaning)));
  const term = (name) => element('b', {}, name);
  const hasBest = results.some(({ best_region: best }) => best > 0);
  if (hasBest) add(element('span', { className: 'swatch best' }), 'box that matches best');
  if (results.some(({ boxes, best_region: best }) => boxes.length > (best > 0))) {
    add(element('span', { className: 'swatch' }), hasBest ? 'other boxes' : 'boxes');
  }
  if (results.some(({ inliers }) => inliers !== null)) add(term('inliers'), limits?.inliers_meaning ?? '');
  if (results.some(hasParts)) {
    for (const [name, meaning] of Object.entries(limits?.score_meanings ?? {})) add(term(name), meaning);
  }
  $('legend').replaceChildren(...items);
  $('legend').hidden = !items.length;
}

const hasParts = ({ local_score: local }) => local !== null;
const bothParts = ({ local_score: local, global_score: global }, separator) =>
  `local ${score(local)}${separator}global ${score(global)}`;

function card(result, top, onclick) {
  const best = result.best_region;
  const photo = element('span', { className: 'fit' },
    element('img', { src: photoAddress(result, '/thumbnail'), alt: '', loading: 'lazy', onerror: missing }),
    svg('svg', { viewBox: '0 0 1 1', preserveAspectRatio: 'none', class: 'boxes', 'aria-hidden': 'true' },
      ...outlines(result.boxes.filter((_, number) => number + 1 !== best), 1, 1, 'box'),
      ...outlines(best > 0 ? [result.boxes[best - 1]] : [], 1, 1, 'box best')));
  const bar = element('i', { className: 'score-bar' });
  bar.style.width = `${100 * Math.max(0, Math.min(1, result.score / top))}%`;
  const region = best === null || !result.boxes.length ? '' : `best: ${best ? `box ${best}` : 'whole photo'}`;
  const inliers = result.inliers === null ? '' : `${result.inliers} ${result.inliers === 1 ? 'inlier' : 'inliers'}`;
  const meanings = Object.entries(limits?.score_meanings ?? {}).map((item) => item.join(': ')).join('\n');
  const button = element('button', {
    type: 'button', className: 'card', onclick,
    'aria-label': `Rank ${result.rank}: ${result.name}, score ${score(result.score)}. Show why it matched`,
  },
  element('span', { className: 'frame' }, photo),
  element('span', { className: 'card-line' }, element('b', {}, String(result.rank)),
    element('span', { className: 'score' }, score(result.score))),
  element('span', { className: 'score-track' }, bar),
  ...(hasParts(result) ? [element('span', { className: 'score-parts', title: meanings }, bothParts(result, ' · '))]
    : []),
  element('span', { className: 'card-note' }, [inliers, region].filter(Boolean).join(' · ')),
  element('span', { className: 'name', title: result.name }, result.name));
  return element('li', {}, button);
}

// Scores in two parts have one decimal at least: a query that finds itself scores thousands, other photos tens. What
// rounds to zero has no sign.
function score(value) {
  const top = Math.max(...answer.results.map((result) => Math.abs(result.score))) || 1;
  const least = answer.results.some(hasParts) ? 1 : 0;
  const digits = Math.min(Math.max(3 - Math.floor(Math.log10(top)), least), 6);
  return value.toFixed(digits).replace(/^-(?=[0.]+$)/, '');
}

function missing() {
  this.closest('.fit').replaceWith(element('span', { className: 'quiet' }, 'photo not available'));
}

async function showMatch(own, position) {
  const { query, results } = own;
  const neighbours = [position - 1, position + 1].map((other) => results[other] && (() => showMatch(own, other)));
  const { id: image, rank, name } = results[position];
  const fused = hasParts(results[position])
    ? `score ${score(results[position].score)}: ${bothParts(results[position], ', ')}` : '';
  await match.show(`${rank}. ${name}`, neighbours, async () => {
    const found = await request(`/api/match?${new URLSearchParams({ query, image })}`);
    return { match: found, photos: [`/api/query/${query}/photo`, photoAddress(found)], fused };
  });
}

// Photos are dropped, chosen, pasted, or given by a link to an indexed one.

function take(files) {
  const photo = [...files].find((file) => file.size >= 0);
  if (photo) search({ photo });
}

$('file').addEventListener('change', () => {
  take($('file').files);
  $('file').value = ''; // so that the same file can be chosen again
});
$('pick').addEventListener('click', () => picker.open());
$('clear-box').addEventListener('click', () => {
  editor.clear();
  editor.stage.focus();
});
$('verify').addEventListener('change', () => {
  if (running && asked.query === undefined) search(asked); // the photo is not displayed yet
  else if (answer) search({ query: answer.query, box: editor.box });
});
$('show-boxes').addEventListener('change', () => {
  document.body.classList.toggle('no-boxes', !$('show-boxes').checked);
});
document.addEventListener('paste', (event) => take(event.clipboardData?.files ?? []));
let depth = 0; // number of nested elements that a drag has entered
document.addEventListener('dragenter', () => document.body.classList.toggle('dropping', ++depth > 0));
document.addEventListener('dragleave', () => document.body.classList.toggle('dropping', --depth > 0));
document.addEventListener('dragover', (event) => event.preventDefault());
document.addEventListener('drop', (event) => {
  event.preventDefault();
  depth = 0;
  document.body.classList.remove('dropping');
  take(event.dataTransfer?.files ?? []);
});

try {
  limits = await request('/api/limits');
  $('index-size').textContent = `${limits.images.toLocaleString('en')} photos`;
  $('annotate-link').hidden = !limits.annotates;
  $('pick').disabled = !limits.photos_at_hand;
  $('verify').checked = limits.verifies;
  $('verify').disabled = Boolean(limits.cannot_verify);
  if (limits.cannot_verify) $('verify').parentElement.title = limits.cannot_verify;
  const indexed = new URLSearchParams(location.search).get('indexed');
  if (indexed) search({ indexed });
} catch (error) {
  showProblem($('problem'), error);
}
