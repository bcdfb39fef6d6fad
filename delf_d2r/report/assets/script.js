'use strict';
// Sorts and filters the queries. Without it the page shows all queries.
(() => {
  const list = document.getElementById('query-list');
  const [toolbar, sort, filter, mistakes, count] =
    ['toolbar', 'sort', 'filter', 'mistakes', 'count'].map((id) => document.getElementById(id));
  const queries = [...list.children].map((node) => ({
    node,
    name: node.dataset.name,
    order: Number(node.dataset.order),
    precision: node.dataset.ap.split(',').map((value) => (value === '' ? null : Number(value))),
    misranks: 'misranks' in node.dataset,
  }));
  const byName = new Intl.Collator('en', { numeric: true }).compare;

  function compare(a, b) {
    if (sort.value === 'name') return byName(a.name, b.name) || a.order - b.order;
    if (sort.value === 'order') return a.order - b.order;
    const column = Number(sort.value.slice(1));
    const [x, y] = [a.precision[column], b.precision[column]];
    if (x === null || y === null) return (x === null) - (y === null) || a.order - b.order;
    return (sort.value[0] === '+' ? x - y : y - x) || a.order - b.order;
  }

  function update() {
    const wanted = filter.value.trim().toLowerCase();
    let shown = 0;
    for (const query of queries) {
      const keep = query.name.toLowerCase().includes(wanted) && (!mistakes?.checked || query.misranks);
      query.node.hidden = !keep;
      shown += keep;
    }
    list.append(...[...queries].sort(compare).map((query) => query.node));
    count.textContent = `${shown} of ${queries.length} shown`;
  }

  // A link from the chart must show its query even if the filter hides it.
  function reveal() {
    const target = document.getElementById(location.hash.slice(1));
    if (target?.hidden) {
      filter.value = '';
      if (mistakes) mistakes.checked = false;
      update();
      target.scrollIntoView();
    }
  }

  sort.addEventListener('change', update);
  filter.addEventListener('input', update);
  mistakes?.addEventListener('change', update);
  window.addEventListener('hashchange', reveal);
  toolbar.hidden = false;
  update();
})();
