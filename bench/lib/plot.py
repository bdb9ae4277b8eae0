"""Bar charts as SVG, without a library, with the spread of the rounds."""

from html import escape

MIB = 1024 * 1024
WIDTH, LABEL, VALUE, BAR, GAP, TOP = 760, 210, 96, 18, 8, 64
OURS, OTHERS, DIRECT = "#1f6f8b", "#b8b2a7", "#d9d5cd"
PLOTS = [
    # file, workload, figure, title, unit, divisor
    ("head", "head-c32", "cpu_us_per_request", "HEAD of a cached object", "CPU µs per request", 1),
    ("range-4k", "range-4k-c32", "cpu_us_per_request", "4 KiB range", "CPU µs per request", 1),
    ("range-64k", "range-64k-c32", "cpu_us_per_request", "64 KiB range", "CPU µs per request", 1),
    ("range-1m", "range-1m-c32", "cpu_us_per_mib", "1 MiB range", "CPU µs per MiB", 1),
    ("range-16m", "range-16m-c32", "cpu_us_per_mib", "16 MiB range", "CPU µs per MiB", 1),
    ("bam", "bam-c32", "cpu_us_per_mib", "BAM sessions", "CPU µs per MiB", 1),
    ("latency", "range-4k-c1", "p50_us", "4 KiB range, one connection", "median µs", 1),
    ("abort", "abort-c32", "origin_bytes_per_delivered", "Downloads aborted after 256 KiB",
     "bytes pulled from the origin per byte delivered", 1),
    ("memory", "slow-c1000", "rss_peak_bytes", "1,000 slow readers", "peak RSS, MiB", MIB),
]


def write_all(directory, summary, contenders, about):
    for name, workload, figure, title, unit, divisor in PLOTS:
        bars = []
        for contender in contenders:
            found = summary.get(workload, {}).get(contender.name, {}).get(figure)
            if found:
                bars.append((contender, *(value / divisor for value in found)))
        if len(bars) > 1:
            footer = f"{about['processor']}, {about['kernel']}, {about['date']}"
            svg = chart(title, f"{unit}; less is better", bars, footer)
            (directory / f"{name}.svg").write_text(svg)


def chart(title, subtitle, bars, footer):
    """Horizontal bars for `(contender, median, least, greatest)`. Bars much longer than the rest
    are cut; their value is printed next to them."""
    bars = sorted(bars, key=lambda bar: bar[1])
    # A bar of more than four times the median one is cut.
    middle = bars[len(bars) // 2][1]
    longest = max(bar[1] for bar in bars if bar[1] <= 4 * middle) or 1
    room = WIDTH - LABEL - VALUE
    height = TOP + len(bars) * (BAR + GAP) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" aria-label="{escape(title)}: {escape(subtitle)}" '
        'font-family="system-ui, sans-serif" font-size="13" fill="#222">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="16" y="26" font-size="17" font-weight="600">{escape(title)}</text>',
        f'<text x="16" y="46" fill="#666">{escape(subtitle)}</text>',
    ]
    for index, (contender, median, least, greatest) in enumerate(bars):
        y = TOP + index * (BAR + GAP)
        middle_y = y + BAR / 2
        is_cut = median > longest
        width = room if is_cut else room * median / longest
        ours = contender.name.startswith("s3proxy")
        color = OURS if ours else DIRECT if contender.name == "origin" else OTHERS
        weight = ' font-weight="600"' if ours else ""
        parts.append(f'<text x="{LABEL - 8}" y="{middle_y + 4.5:.1f}" text-anchor="end"{weight}>'
                     f'{escape(contender.title)}</text>')
        parts.append(f'<rect x="{LABEL}" y="{y}" width="{max(width, 1):.1f}" height="{BAR}" '
                     f'fill="{color}"/>')
        if is_cut:
            x = LABEL + room - 30
            parts.append(f'<path d="M{x} {y + BAR} l8 -{BAR} h5 l-8 {BAR} z" fill="#fff"/>')
        elif greatest > least:
            left, right = (LABEL + room * min(v, longest * 1.02) / longest for v in (least, greatest))
            parts.append(f'<path d="M{left:.1f} {middle_y} H{right:.1f}" stroke="#222" '
                         'stroke-width="1.5"/>')
        parts.append(f'<text x="{LABEL + max(width, 1) + 14:.1f}" y="{middle_y + 4.5:.1f}"{weight}>'
                     f'{_number(median)}</text>')
    parts.append(f'<text x="16" y="{height - 10}" font-size="11" fill="#888">{escape(footer)}</text>')
    return "\n".join(parts) + "\n</svg>\n"


def _number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
