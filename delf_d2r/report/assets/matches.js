// Opens the matches of a report page.

import { MatchView } from './match_view.js';

const entries = JSON.parse(document.getElementById('matches').textContent);
const view = new MatchView(showMatch);

function showMatch(number) {
  const { heading, photos, ...rest } = entries[number];
  const neighbours = [number - 1, number + 1].map((other) => (other in entries ? other : undefined));
  const found = photos.map((photo) => photo.missing ? photo : document.getElementById(photo).getAttribute('href'));
  return view.show(heading, neighbours, async () => ({ ...rest, photos: found }));
}

for (const button of document.querySelectorAll('[data-match]')) {
  button.hidden = false;
  button.addEventListener('click', () => showMatch(Number(button.dataset.match)));
}
