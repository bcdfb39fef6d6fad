// The dialog that lists the indexed photos.

import { photoAddress, request } from './api.js';
import { closable, element, showProblem } from './report/dom.js';

const PAGE = 60;

export class Picker {
  constructor(dialog, onPick) {
    this.dialog = dialog;
    this.onPick = onPick;
    const find = (id) => dialog.querySelector(id);
    [this.filter, this.count, this.list, this.more] =
      ['#filter', '#picker-count', '#picker-list', '#picker-more'].map(find);
    this.problem = element('div', { className: 'problem', hidden: true, 'role': 'alert' });
    this.list.before(this.problem);
    this.filter.addEventListener('input', () => this.#load(0));
    this.more.addEventListener('click', () => this.#load(this.list.children.length));
    closable(dialog);
  }

  open() {
    this.dialog.showModal();
    this.#load(0); // Photos may have been added, removed or replaced.
    this.filter.focus();
  }

  async #load(start) {
    const wanted = this.filter.value;
    try {
      const query = new URLSearchParams({ filter: wanted, start, count: PAGE });
      const { total, images } = await request(`/api/images?${query}`);
      if (wanted !== this.filter.value) return; // overtaken by more typing
      const items = images.map((image) => this.#item(image));
      if (start) this.list.append(...items);
      else this.list.replaceChildren(...items);
      this.count.textContent = total === 1 ? '1 photo' : `${total.toLocaleString('en')} photos`;
      this.more.hidden = this.list.children.length >= total;
      if (start) items[0]?.firstChild.focus();
      showProblem(this.problem, null);
    } catch (error) {
      showProblem(this.problem, error);
    }
  }

  #item(image) {
    const { name } = image;
    const choose = () => {
      this.dialog.close();
      this.onPick(name);
    };
    return element('li', {}, element('button', { type: 'button', className: 'card', onclick: choose },
      element('span', { className: 'frame' },
        element('span', { className: 'fit' },
          element('img', { src: photoAddress(image, '/thumbnail'), alt: '', loading: 'lazy' }))),
      element('span', { className: 'name', title: name }, name)));
  }
}
