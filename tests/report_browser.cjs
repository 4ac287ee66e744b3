// A report in a browser, as its readers have it: light and dark, wide and narrow, with and without scripts.
//
// Outside CI, which has no browser. Needs Chromium and two packages of npm, installed anywhere:
//
//     npm install puppeteer-core@24 axe-core@4
//     NODE_PATH=node_modules node tests/report_browser.cjs report/report.html [SCREENSHOT]
//
// SCREENSHOT is the beginning of three names: -desktop.png, -phone.png and -dark.png.
//
// Fails on a message of the console, on a request to anything but the file, on a fault that axe-core calls serious or
// critical, on content wider than the window, and on anything that scrolls but cannot be reached by keyboard.
const fs = require("fs");
const path = require("path");
const puppeteer = require("puppeteer-core");

const [page_file, screenshot] = process.argv.slice(2);
const url = "file://" + path.resolve(page_file);
const faults = [];

async function open(browser, { dark, width, scripts }) {
  const page = await browser.newPage();
  await page.setJavaScriptEnabled(scripts);
  await page.setViewport({ width, height: 900 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }]);
  const name = `${dark ? "dark" : "light"}, ${width} wide, ${scripts ? "with" : "without"} scripts`;
  page.on("console", (message) => faults.push(`${name}: console: ${message.text()}`));
  page.on("pageerror", (error) => faults.push(`${name}: ${error}`));
  page.on("request", (request) => {
    if (request.url() !== url) faults.push(`${name}: asks for ${request.url().slice(0, 80)}`);
  });
  await page.goto(url);
  return [page, name];
}

async function main() {
  const browser = await puppeteer.launch({
    executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu"],
  });
  const axe = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
  for (const dark of [false, true]) {
    for (const width of [1280, 768, 360]) {
      const [page, name] = await open(browser, { dark, width, scripts: true });
      await page.evaluate(axe);
      const found = await page.evaluate(() => axe.run());
      for (const fault of found.violations) {
        const text = `${name}: axe: ${fault.impact} ${fault.id}: ${fault.nodes[0].html.slice(0, 120)} (${fault.nodes.length} places)`;
        if (["serious", "critical"].includes(fault.impact)) faults.push(text);
        else console.log(text);
      }
      const kind = { "false 1280": "desktop", "false 360": "phone", "true 1280": "dark" }[`${dark} ${width}`];
      if (screenshot && kind) await page.screenshot({ path: `${screenshot}-${kind}.png`, fullPage: true });
      console.log(`${name}: axe passes ${found.passes.length} rules, ${found.violations.length} broken`);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      if (wide > 0) faults.push(`${name}: ${wide} pixels wider than the window`);
      // Whoever has no mouse reaches every link, every fold and every part that scrolls.
      const [wanted, reached] = [new Set(), new Set()];
      for (const id of await page.evaluate(() => {
        const folded = (element) => element.tagName !== "SUMMARY" && element.closest("details:not([open])");
        const all = [...document.querySelectorAll("a[href], summary, [tabindex]")].filter((e) => !folded(e));
        all.forEach((element, i) => (element.dataset.stop = i));
        return all.map((_, i) => i);
      })) wanted.add(id);
      for (let i = 0; i < wanted.size + 2; i++) {
        await page.keyboard.press("Tab");
        const stop = await page.evaluate(() => document.activeElement?.dataset?.stop);
        if (stop !== undefined) reached.add(Number(stop));
      }
      if (reached.size < wanted.size) faults.push(`${name}: ${reached.size} of ${wanted.size} stops reached by Tab`);
      await page.close();
    }
  }
  const [plain, name] = await open(browser, { dark: false, width: 1280, scripts: false });
  const headings = await plain.$$("h2");
  if (headings.length < 2) faults.push(`${name}: ${headings.length} sections`);
  await browser.close();
  for (const fault of faults) console.error(fault);
  console.log(faults.length ? `${faults.length} faults` : "no faults");
  process.exit(faults.length ? 1 : 0);
}

main();
