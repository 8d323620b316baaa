// Looks at pages of a running console in Chromium, in one window: its width and its colour scheme.
//
//   node look.mjs PLAN
//
// PLAN is a JSON document, which tests/it/serve/browser.rs makes:
//
//   base      the address of the server
//   token     an operator's
//   folder    where screenshots and printed pages go
//   view      {width, scheme}
//   pages     paths with the status that each answers with, and files: [path, status]
//   prints    paths that are printed as well
//   act       {rollup, slice, from}: what operators do, see acts.mjs; or null
//   pictures  {file, path, width, height, scheme, at, open}: screenshots for the documentation, see below
//
// The last line of the output is a JSON document: the pages that were looked at, what actions said, and the problems.
// checks.mjs says what a problem is.
import { createRequire } from 'node:module'
import { mkdirSync, readFileSync } from 'node:fs'
import { acts } from './acts.mjs'
import { faults, printedFaults } from './checks.mjs'

const plan = JSON.parse(process.argv[2])
// The packages lie where they were installed, which need not be above this file.
const require = createRequire(process.env.NODE_MODULES_OF ?? import.meta.url)
const { chromium } = require('playwright-core')
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8')

mkdirSync(plan.folder, { recursive: true })
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox'],
})
const problems = []
const printed = {}
let looked = 0

/// A page of a context that has the token, and notes what no page may do.
async function open({ width, height = 900, scheme }) {
  const context = await browser.newContext({
    viewport: { width, height },
    colorScheme: scheme,
    hasTouch: width < 500,
    httpCredentials: { username: 'operator', password: plan.token },
  })
  const page = await context.newPage()
  const note = (what) => problems.push(`${page.url()} at ${width} ${scheme}: ${what}`)
  page.on('console', (message) => {
    // Chromium logs an answer of a status that the plan may expect.
    const isStatus = message.text().startsWith('Failed to load resource: the server responded with a status of 4')
    if (message.type() === 'error' && !isStatus) note(`logged ${message.text()}`)
  })
  page.on('dialog', (dialog) => {
    note(`a script ran: ${dialog.message()}`)
    dialog.dismiss()
  })
  page.on('request', (request) => {
    const isOurs = [`${plan.base}/`, 'data:', 'file:'].some((it) => request.url().startsWith(it))
    if (!isOurs) note(`asked for ${request.url()}`)
  })
  return page
}

const address = (path) => (path.startsWith('file:') ? path : plan.base + path)

/// Looks at the page that is open.
async function inspect(page, name) {
  const { width, scheme } = plan.view
  const at = `${name} at ${width} ${scheme}`
  problems.push(...(await page.evaluate(faults)).map((it) => `${at}: ${it}`))
  await page.evaluate(axe)
  const found = await page.evaluate(() => window.axe.run({ rules: { 'target-size': { enabled: true } } }))
  for (const { id, impact, nodes } of found.violations) {
    problems.push(`${at}: ${impact} ${id}: ${nodes.slice(0, 3).map((it) => it.html).join(' ')}`)
  }
  const word = decodeURIComponent(name).replace(/^file:.*\//, '').replace(/[^a-z0-9]+/gi, '-').replace(/^-|-$/g, '')
  const number = String(looked).padStart(2, '0')
  const path = `${plan.folder}/${width}-${scheme}-${number}-${word.slice(0, 60) || 'home'}.png`
  await page.screenshot({ path, fullPage: true })
  looked += 1
}

/// Prints the page at `path`, on paper of A4.
async function print(page, path, number) {
  const { width, scheme } = plan.view
  await page.goto(address(path))
  await page.emulateMedia({ media: 'print', colorScheme: scheme })
  // The paper's width in pixels, less margins of 10 mm.
  await page.setViewportSize({ width: 718, height: 1000 })
  problems.push(...(await page.evaluate(printedFaults)).map((it) => `${path} printed ${scheme}: ${it}`))
  const margin = { top: '10mm', right: '10mm', bottom: '10mm', left: '10mm' }
  const file = `${plan.folder}/${width}-${scheme}-printed-${number}.pdf`
  const pdf = await page.pdf({ path: file, format: 'A4', margin, printBackground: true })
  printed[path] = (pdf.toString('latin1').match(/\/Type \/Page\b/g) ?? []).length
  await page.emulateMedia({ media: null, colorScheme: scheme })
  await page.setViewportSize({ width, height: 900 })
}

/// A screenshot for the documentation: of the window, from the heading `at` on, with the first `open` details open.
async function picture({ file, path, width, height, scheme, at, open: isOpen }) {
  const page = await open({ width, height, scheme })
  await page.goto(address(path))
  if (isOpen) await page.locator('summary').first().click()
  if (at) {
    const top = await page.getByRole('heading', { name: at, exact: true }).boundingBox()
    await page.evaluate((y) => window.scrollTo(0, y - 16), top.y)
  }
  await page.screenshot({ path: `${plan.folder}/${file}.png` })
  await page.context().close()
}

const page = await open(plan.view)
for (const [path, status] of plan.pages) {
  const answer = await page.goto(address(path))
  const seen = path.startsWith('file:') ? 200 : answer.status()
  if (seen !== status) problems.push(`${path}: status ${seen} instead of ${status}`)
  await inspect(page, path)
}
for (const [number, path] of plan.prints.entries()) await print(page, path, number)
const acted = plan.act ? await acts(page, plan, (name) => inspect(page, name)) : {}
for (const one of plan.pictures) await picture(one)
await browser.close()
console.log(JSON.stringify({ looked, printed, acted, problems }))
