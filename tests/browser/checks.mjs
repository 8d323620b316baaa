// What is wrong with a page, as the browser has laid it out. The functions run within the page, so each stands alone.

/// Faults of a page in a window.
export function faults() {
  const found = []
  const named = (it) => `${it.tagName.toLowerCase()} "${(it.textContent ?? '').trim().slice(0, 40)}"`
  const wide = document.documentElement.scrollWidth - window.innerWidth
  if (wide > 0) found.push(`${wide} pixels too wide`)
  if (document.scripts.length > 0) found.push('it has a script')
  if (document.querySelectorAll('h1').length !== 1) found.push('it has not one first heading')
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  while (texts.nextNode()) {
    const { data, parentElement } = texts.currentNode
    const isShown = !parentElement.closest('pre, code, style')
    if (isShown && data.includes('`')) found.push(`a mark of a command is text: ${data}`)
    if (isShown && /[\u202a-\u202e\u2066-\u2069]/.test(data)) found.push(`a hidden character: ${data}`)
  }

  for (const it of document.querySelectorAll('body *')) {
    // Regions that scroll have their own test. A hidden text for screen readers has no place.
    if (it.closest('.wide, .sr, .skip, svg')) continue
    const box = it.getBoundingClientRect()
    if (box.width > 0 && box.right > window.innerWidth + 1) found.push(`cut at the right: ${named(it)}`)
    const isCut = getComputedStyle(it).overflowX === 'hidden' && it.scrollWidth > it.clientWidth + 1
    if (isCut) found.push(`cut in its box: ${named(it)}`)
  }

  for (const region of document.querySelectorAll('.wide')) {
    const scrolls = region.scrollWidth > region.clientWidth
    if (scrolls && region.tabIndex < 0) found.push(`only a mouse can scroll ${named(region)}`)
  }

  for (const table of document.querySelectorAll('table')) {
    const titles = [...table.tHead.rows[0].cells]
    for (const row of table.tBodies[0].rows) {
      if (row.cells.length !== titles.length) found.push(`${row.cells.length} cells for ${titles.length} titles: ${named(row)}`)
      titles.forEach((title, place) => {
        const cell = row.cells[place]
        const [above, below] = [title, cell].map((it) => it && getComputedStyle(it).textAlign)
        if (cell && above !== below && [above, below].includes('right')) found.push(`not below its title: ${named(cell)}`)
      })
    }
  }

  // 24 pixels are the least that a finger needs (WCAG 2.2). A letter of the calendar has its line's link instead.
  for (const it of document.querySelectorAll('button, select, input:not([type=hidden]), nav a, summary')) {
    const box = it.getBoundingClientRect()
    if (box.width < 24 || box.height < 24) found.push(`small: ${named(it)}, ${box.width} × ${box.height}`)
  }

  for (const svg of document.querySelectorAll('figure svg')) {
    const frame = svg.getBoundingClientRect()
    const boxes = [...svg.querySelectorAll('text')].map((it) => [named(it), it.getBoundingClientRect()])
    for (const [name, box] of boxes) {
      const isIn =
        box.left >= frame.left - 1 && box.right <= frame.right + 1 && box.top >= frame.top - 1 && box.bottom <= frame.bottom + 1
      if (!isIn) found.push(`out of its chart: ${name}`)
      for (const [other, it] of boxes) {
        const overlaps = box.left < it.right && it.left < box.right && box.top < it.bottom && it.top < box.bottom
        if (name < other && overlaps) found.push(`one over the other in a chart: ${name}, ${other}`)
      }
    }
  }
  return found
}

/// Faults of a page that is laid out for paper.
export function printedFaults() {
  const found = []
  const named = (it) => `${it.tagName.toLowerCase()} "${(it.textContent ?? '').trim().slice(0, 40)}"`
  const background = getComputedStyle(document.body).backgroundColor
  if (background !== 'rgb(255, 255, 255)') found.push(`its ground is ${background}`)
  const wide = document.documentElement.scrollWidth - window.innerWidth
  if (wide > 0) found.push(`${wide} pixels too wide`)
  for (const it of document.querySelectorAll('form, button, input, nav')) {
    if (it.getClientRects().length > 0) found.push(`on paper: ${named(it)}`)
  }
  for (const it of document.querySelectorAll('h2')) {
    const isOver = it.getClientRects().length > 0 && it.innerText.startsWith('Act')
    if (isOver && !it.innerText.startsWith('Actions')) found.push(`a heading over nothing: ${named(it)}`)
  }
  for (const it of document.querySelectorAll('td, th, dd, pre, figure, .cells')) {
    const box = it.getBoundingClientRect()
    if (box.width > 0 && box.right > window.innerWidth + 1) found.push(`cut at the right: ${named(it)}`)
  }
  return found
}
