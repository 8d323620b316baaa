// What operators do in the console. Each answers with the text of the page that tells how it ended.

/// Waits until the action whose page is open has ended.
async function ended(page) {
  await page.waitForURL('**/action/*')
  for (let tries = 0; tries < 600 && (await page.getByText('running', { exact: true }).count()); tries += 1) {
    await page.waitForTimeout(100)
    await page.reload()
  }
  return page.locator('main').innerText()
}

/// The form that has this button.
const formOf = (page, button) => page.locator('form').filter({ has: page.getByRole('button', { name: button, exact: true }) })

/// Fills in the form of `button` by its labels, and sends it.
async function send(page, button, fields = {}) {
  const form = formOf(page, button)
  for (const [label, text] of Object.entries(fields)) {
    const field = form.getByLabel(label)
    if (text === true) await field.check()
    else await field.fill(text)
  }
  await form.getByRole('button', { name: button, exact: true }).click()
}

/// Presses Tab until the focus is on an element that `isWanted` accepts in the page.
async function tabTo(page, isWanted, wanted) {
  for (let pressed = 0; pressed < 400; pressed += 1) {
    await page.keyboard.press('Tab')
    if (await page.evaluate(isWanted, wanted)) return
  }
  throw new Error(`Tab never comes to ${wanted}`)
}

const isText = (text) => document.activeElement.textContent.trim() === text || document.activeElement.textContent.trim().startsWith(`${text}:`)
const isField = (label) => document.activeElement.closest('label')?.textContent.trim() === label

/// From the overview to the replay of a slice, by keys alone.
async function byKeys(page, { rollup, slice }) {
  await page.keyboard.press('Tab')
  if (!(await page.evaluate(isText, 'Skip to the content'))) throw new Error('the first stop does not skip to the content')
  await page.keyboard.press('Enter')
  const follow = async (text) => {
    await tabTo(page, isText, text)
    await Promise.all([page.waitForNavigation(), page.keyboard.press('Enter')])
  }
  await follow(rollup)
  await follow(slice.slice(0, 7))
  await follow(slice.slice(0, 10))
  await tabTo(page, isField, 'Reason')
  // Without a reason nothing is sent.
  const before = page.url()
  await page.keyboard.press('Enter')
  if (page.url() !== before) throw new Error('a form without a reason was sent')
  await page.keyboard.type('seen with keys')
  await tabTo(page, isText, 'Replay this slice')
  await page.keyboard.press('Enter')
  return ended(page)
}

/// Does all that an operator can do. `inspect` looks at the page that is open.
export async function acts(page, { base, act }, inspect) {
  const [home, rollup] = ['/', `/rollup/${act.rollup}`]
  const told = {}
  const go = (path) => page.goto(base + path)
  const text = () => page.locator('main').innerText()

  await go(home)
  told['replay by keys'] = await byKeys(page, act)
  await inspect('action')

  await go(`${rollup}?slice=${act.slice}`)
  await send(page, 'Compare with the source')
  told.verify = await ended(page)

  await go(rollup)
  await send(page, 'Replay all that failed', { Reason: 'mended' })
  told['replay of all'] = await ended(page)

  await go(rollup)
  await send(page, 'Plan a backfill', { From: act.from, 'also slices that succeeded': true })
  told.plan = await text()
  await inspect('plan')
  await send(page, 'Start this backfill')
  told.backfill = await ended(page)

  for (const [where, path] of [['rollup', rollup], ['all', home]]) {
    await go(path)
    await send(page, 'Pause', { Reason: 'seen in the browser', 'for, such as 2h': '3h' })
    told[`pause of ${where}`] = await ended(page)
    await go(path)
    told[`paused ${where}`] = await text()
    await send(page, 'Resume')
    told[`resume of ${where}`] = await ended(page)
    for (const speed of ['7', 'default']) {
      await go(path)
      await send(page, 'Set the speed', { 'Rest as a multiple': speed })
      told[`speed ${speed} of ${where}`] = await ended(page)
    }
  }

  await go(rollup)
  await send(page, 'Cancel its backfills')
  told.cancel = await ended(page)

  await go(rollup)
  await send(page, 'Set the speed', { 'Rest as a multiple': 'soon' })
  told['wrong speed'] = await ended(page)
  await inspect('failed action')

  await go(rollup)
  // A reason of blanks passes the browser, and the server refuses it.
  await send(page, 'Replay all that failed', { Reason: ' ' })
  told.refused = await text()
  await inspect('refusal')

  await go(home)
  told.overview = await text()
  await inspect('after all actions')
  return told
}
