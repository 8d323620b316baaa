// Looks at pages of a running console in Chromium: every width and colour scheme, with axe.
//
//   node look.mjs BASE TOKEN FOLDER WIDTHS PATH…
//
// BASE is the address of the server, TOKEN an operator's, FOLDER where screenshots go, WIDTHS such as 360,1400. A page
// fails if it answers with an error, logs one, asks another host for anything, is wider than the window, or has a
// finding of axe that is serious. The last line is a JSON document. With the path `act:ROLLUP:SLICE` it replays that
// slice by the page's own form, and says what the page of the action says.
import { createRequire } from 'node:module'
import { mkdirSync, readFileSync } from 'node:fs'

const [base, token, folder, widths, ...paths] = process.argv.slice(2)
// The packages lie where they were installed, which need not be above this file.
const require = createRequire(process.env.NODE_MODULES_OF ?? import.meta.url)
const { chromium } = require('playwright-core')
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8')

mkdirSync(folder, { recursive: true })
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox'],
})
const problems = []
let looked = 0

/// A context that has the token, and notes what no page may do.
async function open(width, colorScheme) {
  const context = await browser.newContext({
    viewport: { width, height: 900 },
    colorScheme,
    httpCredentials: { username: 'operator', password: token },
  })
  const page = await context.newPage()
  const at = () => `${new URL(page.url(), base).pathname} at ${width} ${colorScheme}`
  page.on('console', (message) => {
    if (message.type() === 'error') problems.push(`${at()}: logged ${message.text()}`)
  })
  page.on('request', (request) => {
    const url = request.url()
    if (!url.startsWith(base) && !url.startsWith('data:')) problems.push(`${at()}: asked for ${url}`)
  })
  return page
}

async function look(page, path, width, scheme) {
  const answer = await page.goto(base + path)
  const at = `${path} at ${width} ${scheme}`
  if (answer.status() !== 200) problems.push(`${at}: status ${answer.status()}`)
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth)
  if (wide > 0) problems.push(`${at}: ${wide} pixels too wide`)
  await page.evaluate(axe)
  const found = await page.evaluate(() => window.axe.run())
  for (const { id, impact, nodes } of found.violations) {
    const finding = `${at}: ${impact} ${id}: ${nodes.slice(0, 3).map((it) => it.html).join(' ')}`
    if (['serious', 'critical'].includes(impact)) problems.push(finding)
    else console.log(finding)
  }
  const name = path.replace(/[^a-z0-9]+/gi, '-').replace(/^-|-$/g, '') || 'home'
  await page.screenshot({ path: `${folder}/${name}-${width}-${scheme}.png`, fullPage: true })
  looked += 1
}

/// Replays a slice as an operator does, by keyboard.
async function act(page, rollup, slice) {
  await page.goto(`${base}/rollup/${rollup}?slice=${slice}`)
  await page.getByLabel('Reason').fill('seen in the browser')
  await page.getByRole('button', { name: 'Replay this slice' }).press('Enter')
  await page.waitForURL('**/action/*')
  for (let tries = 0; tries < 600 && (await page.getByText('running', { exact: true }).count()); tries += 1) {
    await page.waitForTimeout(100)
    await page.reload()
  }
  return page.locator('main').innerText()
}

let acted = null
for (const width of widths.split(',').map(Number)) {
  for (const scheme of ['light', 'dark']) {
    const page = await open(width, scheme)
    for (const path of paths) {
      const [kind, rollup, ...slice] = path.split(':')
      if (kind !== 'act') await look(page, path, width, scheme)
      else acted ??= await act(page, rollup, slice.join(':'))
    }
    await page.context().close()
  }
}
await browser.close()
console.log(JSON.stringify({ looked, acted, problems }))
