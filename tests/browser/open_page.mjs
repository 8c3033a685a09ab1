// Opens pages in a real browser, in every scheme and width, and says what happened. Reads JSON from standard input:
//   {browser: path, file: path, views: [{name, scheme, width, height, screenshot}]}
// and writes, for each view: {name, console, requests, failures, pageWidth, charts: [{label, texts}], tables}
// Playwright's library drives the browser that is given; it brings none of its own.
import { createRequire } from 'node:module'
import { readFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'

const { chromium } = createRequire(pathToFileURL(`${process.argv[2]}/`))('playwright-core')
const job = JSON.parse(readFileSync(0, 'utf8'))
const address = pathToFileURL(job.file).href

async function look(browser, view) {
  const context = await browser.newContext({
    colorScheme: view.scheme,
    viewport: { width: view.width, height: view.height },
  })
  const page = await context.newPage()
  const seen = { name: view.name, console: [], requests: [], failures: [] }
  page.on('console', (message) => seen.console.push(`${message.type()}: ${message.text()}`))
  page.on('pageerror', (error) => seen.failures.push(String(error)))
  page.on('request', (request) => request.url() === address || seen.requests.push(request.url()))
  await page.goto(address, { waitUntil: 'load' })
  Object.assign(
    seen,
    await page.evaluate(() => ({
      pageWidth: document.documentElement.scrollWidth,
      background: getComputedStyle(document.body).backgroundColor,
      charts: Array.from(document.querySelectorAll('[data-chart]'), (chart) => ({
        label: chart.getAttribute('aria-label'),
        width: chart.querySelector('svg')?.getBoundingClientRect().width ?? 0,
        room: chart.getBoundingClientRect().width,
        shapes: chart.querySelectorAll('svg path').length,
        texts: Array.from(chart.querySelectorAll('svg text'), (text) => text.textContent),
        inks: Array.from(new Set(Array.from(chart.querySelectorAll('svg text'), (text) => getComputedStyle(text).fill))),
      })),
    })),
  )
  await page.screenshot({ path: view.screenshot, fullPage: true })
  await context.close()
  return seen
}

// In a container the browser is root and has no sandbox of its own; the page is one that was just written here.
const browser = await chromium.launch({ executablePath: job.browser, args: ['--no-sandbox'] })
try {
  const seen = []
  for (const view of job.views) seen.push(await look(browser, view))
  console.log(JSON.stringify(seen))
} finally {
  await browser.close()
}
