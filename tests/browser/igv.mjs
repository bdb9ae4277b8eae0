// Shows a BAM in igv.js in Chromium, and reloads the page for each line on standard input. After each
// time it prints one line: the number of reads at a place, and the name of the first.
//
//   node igv.mjs PROFILE_DIRECTORY BAM_URL LOCUS

import { createReadStream } from 'node:fs';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

const [profile, bam, locus] = process.argv.slice(2);
const igv = new URL('node_modules/igv/dist/igv.esm.min.js', import.meta.url);
const bases = 12_000_000;
const page = `<!doctype html><title>igv.js</title><link rel="icon" href="data:,"><div id="igv"></div>
<script type="module">
  import igv from '/igv.js';
  const browser = await igv.createBrowser(document.getElementById('igv'), {
    reference: { id: 'lab', fastaURL: '/genome.fa', indexURL: '/genome.fa.fai' },
    locus: ${JSON.stringify(locus)},
    tracks: [{ type: 'alignment', format: 'bam', url: ${JSON.stringify(bam)},
               indexURL: ${JSON.stringify(`${bam}.bai`)}, name: 'reads' }],
  });
  const [, chromosome, start, end] = /^(.*):(\\d+)-(\\d+)$/.exec(${JSON.stringify(locus)});
  const track = browser.findTracks(track => track.name === 'reads')[0];
  const found = await track.featureSource.getAlignments(chromosome, start - 1, Number(end));
  const reads = found.allAlignments();
  window.shown = reads.length + ' ' + (reads[0]?.readName ?? '-');
</script>`;

// The page, the library, and a reference of which no base is known.
const server = createServer((request, response) => {
  const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
  if (request.url === '/igv.js') {
    response.setHeader('Content-Type', 'text/javascript');
    createReadStream(igv).pipe(response);
  } else if (request.url === '/genome.fa.fai') {
    response.end(`chr1\t${bases}\t6\t${bases}\t${bases + 1}\n`);
  } else if (request.url === '/genome.fa' && range) {
    const length = range[2] - range[1] + 1;
    response.writeHead(206, { 'Content-Range': `bytes ${range[1]}-${range[2]}/${bases + 7}` });
    response.end('N'.repeat(length));
  } else {
    response.setHeader('Content-Type', 'text/html');
    response.end(page);
  }
}).listen(0, '127.0.0.1', run);

async function run() {
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
  try {
    const tab = context.pages()[0] ?? await context.newPage();
    tab.on('pageerror', error => console.error(error.message));
    tab.on('console', message => message.type() === 'error' && console.error(message.text()));
    const show = async () => {
      const shown = await tab.waitForFunction(() => window.shown, null, { timeout: 60_000 });
      console.log(await shown.jsonValue());
    };
    await tab.goto(`http://127.0.0.1:${server.address().port}/`);
    await show();
    for await (const _ of createInterface({ input: process.stdin })) {
      await tab.reload();
      await show();
    }
  } finally {
    await context.close();
    server.closeAllConnections();
    server.close();
  }
}
