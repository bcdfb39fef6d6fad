// The annotation page: one photo at a time, one box for each, saved as soon as it is drawn.

import { put, request } from './api.js';
import { BoxEditor } from './box_editor.js';
import { showProblem } from './report/dom.js';

const $ = (id) => document.getElementById(id);
const SAVING_PAUSE = 300; // milliseconds between the last change of a box and saving it

let photo = null; // the server's record of the photo in the heading
let seen = null; // its number, once the picture is displayed or has failed to load
let total = 0;
const visited = new Set(); // numbers of photos whose pictures the page has loaded
let pause = 0;
let unsaved = null; // the number and box of a photo that are still to be saved

const editor = new BoxEditor($('editor'), { onChange, label: 'Photo to annotate', describedBy: 'editor-help' });

function onChange(box) {
  unsaved = { number: photo.number, box };
  $('state').textContent = 'Saving…';
  clearTimeout(pause);
  pause = setTimeout(() => guarded(save), SAVING_PAUSE);
}

async function save() {
  clearTimeout(pause);
  if (!unsaved) return;
  const { number, box } = unsaved;
  const path = `/api/annotate/${number}`;
  const saved = box ? await put(path, { box }) : await request(path, { method: 'DELETE' });
  if (unsaved?.number === number && String(unsaved.box) === String(box)) unsaved = null;
  await accept(saved);
}

// Displays what the server has saved.
async function accept(saved) {
  if (saved.number === photo.number) {
    photo = saved;
    showState();
  }
  await showProgress();
}

async function show(number) {
  if (number === null || number < 0 || number >= total) return;
  let found;
  do {
    await save();
    found = await request(`/api/annotate/${number}`);
  } while (unsaved); // The previous photo may be drawn on until then.
  photo = found;
  seen = null;
  location.replace(`#${number + 1}`);
  $('name').textContent = found.name;
  $('previous').disabled = number === 0;
  $('next').disabled = number === total - 1;
  showState();
  $('editor').classList.add('waiting');
  try {
    await editor.show(pictureOf(number), found.box);
  } catch {
    if (photo === found) {
      throw Object.assign(new Error(`${found.name} cannot be shown.`), { remedy: 'Go to the next one.' });
    }
  } finally {
    $('editor').classList.remove('waiting');
    seen = number;
  }
}

// Browsers do not ask again for a picture that the page has shown, whose photo may have been replaced since.
function pictureOf(number) {
  const again = visited.has(number) ? `?again=${Date.now()}` : '';
  visited.add(number);
  return `/api/annotate/${number}/photo${again}`;
}

function showState() {
  const { box, done } = photo;
  $('state').textContent = box ? 'Box saved' : done ? 'No object' : 'Not done';
  $('state').dataset.state = box ? 'box' : done ? 'none' : 'open';
  $('clear').disabled = !done;
}

async function showProgress() {
  const progress = await request('/api/annotate');
  total = progress.total;
  $('done').textContent = `${progress.done.toLocaleString('en')} of ${total.toLocaleString('en')} done`;
  $('progress').max = total;
  $('progress').value = progress.done;
  $('output').textContent = progress.output;
  $('undone').disabled = progress.next === null;
  return progress;
}

async function noObject() {
  unsaved = null;
  editor.set(null, { silent: true });
  await accept(await put(`/api/annotate/${photo.number}`, { box: null }));
  await show(photo.number + 1);
}

async function clear() {
  unsaved = { number: photo.number, box: null };
  editor.set(null, { silent: true });
  await save();
}

const actions = {
  previous: () => show(photo.number - 1),
  next: () => show(photo.number + 1),
  none: noObject,
  clear,
  undone: async () => {
    await save();
    await show((await request(`/api/annotate?start=${photo.number + 1}`)).next);
  },
};
const OF_THE_PHOTO = ['none', 'clear']; // they apply to the photo that was displayed when the key was pressed
const KEYS = { p: 'previous', n: 'next', 0: 'none', c: 'clear', u: 'undone' };

// Actions run one after the other: a key that is held down must not overtake the saving of a box.
let queue = Promise.resolve();

function guarded(action) {
  queue = queue.then(async () => {
    try {
      showProblem($('problem'), null);
      await action();
    } catch (error) {
      showProblem($('problem'), error);
    }
  });
  return queue;
}

function act(name) {
  const number = seen;
  guarded(async () => {
    if (number === photo.number || !OF_THE_PHOTO.includes(name)) await actions[name]();
  });
}

for (const name of Object.keys(actions)) $(name).addEventListener('click', () => act(name));
document.addEventListener('keydown', (event) => {
  const name = KEYS[event.key.toLowerCase()];
  if (!name || event.ctrlKey || event.metaKey || event.altKey || $(name).disabled) return;
  event.preventDefault();
  act(name);
});
window.addEventListener('beforeunload', (event) => {
  if (unsaved) event.preventDefault();
});

guarded(async () => {
  const progress = await showProgress();
  $('search-link').hidden = !(await fetch('/api/limits')).ok;
  editor.stage.focus();
  const asked = Number(location.hash.slice(1)) - 1;
  await show(asked >= 0 && asked < total ? asked : progress.next ?? 0);
});
