#!/bin/bash
# Reports on a finished run, an interrupted one, and five at once, as a self-contained page and as slides.
source "$(dirname "$0")/lib.sh"

run=(train --config "$repository/configs/tiny.yaml" --set train.steps=12 --set train.batch_size=4
    --set train.log_every=1 --set train.sample_every=6 --set train.checkpoint_every=6 --set sampling.count=4
    --set sampling.steps=3 --set optimizer.warmup_steps=2)
for number in 1 2 3 4; do
    expect_status 0 "$disttrain" "${run[@]}" --set "seed=$number" --output "$scratch/run$number"
done
# A run that was killed: no final checkpoint, no model, a truncated last line.
cp -r "$scratch/run4" "$scratch/broken"
rm -r "$scratch/broken/model" "$scratch/broken/checkpoints/step-00000012"
sed -i -e '/"step":1[012],/d' -e '/"step":9,/d' "$scratch/broken/metrics.jsonl"
printf '{"kind":"step","step":9,"lo' >>"$scratch/broken/metrics.jsonl"
sed -i 's/"finished"/"failed"/' "$scratch/broken/status.json"
# File contents are escaped, whatever they contain.
sed -i 's/"hosts":\["/"hosts":["<script>a\&b`/' "$scratch/broken/metrics.jsonl"
# A run that was evaluated.
mkdir "$scratch/run2/evaluation"
cat >"$scratch/run2/evaluation/step-00000012-inception.json" <<'END'
{"format_version": 1, "step": 12, "weights": "ema-0.99", "features": "inception", "count": 64,
 "reference": {"path": "data/<faces>", "count": 64}, "sampler": {"steps": 3, "eta": 0.0, "seed": 1},
 "metrics": {"fid": 321.2, "kid": 0.25, "kid_low": 0.2, "kid_high": 0.3, "precision": 0.5, "something_new": 7}}
END

# check_page FILE: the page is well-formed, contains every section, and loads nothing from elsewhere.
check_page() {
    python3 - "$1" <<'END' || fail "$1 is not a complete page"
import html.parser, re, sys

class Page(html.parser.HTMLParser):
    void = {"meta", "img", "link", "br", "hr", "line", "path", "input"}
    def __init__(self):
        super().__init__()
        self.open, self.ids, self.faults = [], [], []
    def handle_starttag(self, tag, attributes):
        if tag not in self.void: self.open.append(tag)
        for name, value in attributes:
            if name == "id": self.ids.append(value)
            if name in ("src", "href") and not value.startswith(("data:image/png;base64,", "#")):
                self.faults.append(f"{tag} loads {value[:60]}")
        if tag in ("script", "link", "iframe"): self.faults.append(f"a <{tag}>")
    def handle_startendtag(self, tag, attributes): pass
    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag: self.faults.append(f"</{tag}> closes nothing at {self.getpos()}")

text = open(sys.argv[1], encoding="utf-8").read()
page = Page()
page.feed(text)
page.close()
sections = ("summary environment model settings loss curves throughput cost time samples denoising evaluation "
            "restarts").split()
page.faults += [f"<{tag}> stays open" for tag in page.open]
page.faults += [f"no section {name}" for name in sections if page.ids.count(name) != 1]
text = re.sub(r"base64,[^\"]*", "", text)
if re.search(r"https?://|@import|url\(", text): page.faults.append("something from the network")
if "NaN" in text or "<faces>" in text: page.faults.append("text that is not escaped or no number")
if page.faults: sys.exit("\n".join(page.faults[:10]))
END
}

# expect_pictures FILE...: the files exist and are PNG.
expect_pictures() {
    local picture
    for picture in "$@"; do
        [[ $(head -c 4 "$picture" | tail -c 3) == PNG ]] || fail "$picture is not a PNG file"
    done
}

expect_status 0 "$disttrain" report "$scratch/run1"
expect_text "Wrote $scratch/run1/report/report.html" 1
check_page "$scratch/run1/report/report.html"
files=$scratch/run1/report/report_files
expect_pictures "$files"/{loss,learning_rate,gradient_norm,throughput}.png
grep -q "completed all 12 steps" "$scratch/run1/report/report.html" || fail "the run is not reported as finished"
grep -q "No evaluation yet" "$scratch/run1/report/report.html" || fail "the page does not say what is missing"
[[ $(grep -o 'data:image/png' "$scratch/run1/report/report.html" | wc -l) == 3 ]] || fail "expected 3 sample grids"
# The folder still belongs to the run: it can be resumed, and nothing else in it has changed.
expect_status 0 "$disttrain" "${run[@]}" --set seed=1 --output "$scratch/run1"

expect_status 0 "$disttrain" report "$scratch/broken" --output "$scratch/broken.html"
check_page "$scratch/broken.html"
grep -q "interrupted at step 8 of 12" "$scratch/broken.html" || fail "the page does not say where the run was interrupted"
grep -q '&lt;script&gt;a&amp;b`' "$scratch/broken.html" || fail "the host's name is not shown in full"
grep -q "Skipped unreadable lines of.*: 1\." "$scratch/broken.html" || fail "the page does not mention the truncated line"

expect_status 0 "$disttrain" report "$scratch/run2" --lang ja --output "$scratch/ja.html"
check_page "$scratch/ja.html"
grep -q 'lang="ja"' "$scratch/ja.html" || fail "the page does not declare its language"
grep -q 'FID.*321' "$scratch/ja.html" || fail "no evaluation"

all=("$scratch"/run{1,2,3,4} "$scratch/broken")
expect_status 0 "$disttrain" report "${all[@]}" --output "$scratch/five.html"
check_page "$scratch/five.html"
[[ $(grep -o '<path class="raw' "$scratch/five.html" | wc -l) -ge 15 ]] || fail "expected a curve of each run in each plot"

# Runs that have just started.
mkdir -p "$scratch/empty"
cp "$scratch/run1/config.yaml" "$scratch/empty/"
expect_status 0 "$disttrain" report "$scratch/empty" --output "$scratch/empty.html"
check_page "$scratch/empty.html"
printf 'not: [a configuration' >"$scratch/empty/config.yaml"
printf '{"kind":"step","step":1e99}\n{"kind":"step","step":-4}\n[]\n{"kind":"step","step":3,"loss":null}\n' \
    >"$scratch/empty/metrics.jsonl"
expect_status 0 "$disttrain" report "$scratch/empty" --output "$scratch/empty.html"
check_page "$scratch/empty.html"

# Slides: every image that they reference exists.
for language in en ja; do
    expect_status 0 "$disttrain" report "${all[@]}" --format marp --lang "$language" --output "$scratch/talk/$language.md"
    head -n 2 "$scratch/talk/$language.md" | grep -q 'marp: true' || fail "no front matter"
    [[ $(grep -c '^---$' "$scratch/talk/$language.md") -ge 14 ]] || fail "slides are missing"
    pictures=$(grep -o '](\S*\.png)' "$scratch/talk/$language.md" | sed 's/](\(.*\))/\1/')
    [[ $(wc -w <<<"$pictures") -ge 7 ]] || fail "pictures are missing"
    for picture in $pictures; do expect_pictures "$scratch/talk/$picture"; done
done
expect_status 0 "$disttrain" report "$scratch/run2" --format marp
[[ -s $scratch/run2/report/slides.md ]] || fail "no slides in the run's folder"

# Images of the sampling process, on request; later reports keep them.
expect_status 0 "$disttrain" report "$scratch/run3" --pictures --output "$scratch/pictures.html"
check_page "$scratch/pictures.html"
expect_pictures "$scratch"/run3/report/{denoising,interpolation}.png
expect_status 0 "$disttrain" report "$scratch/run3" --output "$scratch/again.html"
[[ $(grep -o 'data:image/png' "$scratch/again.html" | wc -l) == 5 ]] || fail "expected 3 sample grids and 2 strips"
expect_status 0 "$disttrain" report "$scratch/empty" --pictures --output "$scratch/empty.html"

# Paths that are not runs.
expect_status 2 "$disttrain" report
expect_status 2 "$disttrain" report "$scratch/nothing"
expect_text "nothing: no such folder" 1
expect_status 2 "$disttrain" report "$scratch/talk"
expect_text "contains neither config.yaml nor metrics.jsonl" 1
