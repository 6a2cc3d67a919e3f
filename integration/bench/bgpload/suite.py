#!/usr/bin/env python3
"""Run the workload matrix with bgpload and tabulate medians.

  suite.py run [--runs 3] [--only W1,W2] [--duts bird2,frr] [--out FILE]
  suite.py table [--out FILE]

`run` appends one JSON line per run to FILE, round-robin over speakers so a
partial file is already balanced. Before each run it waits for a quiet machine.
`table` prints Markdown; runs disturbed by other processes are dropped when
enough quiet ones exist, otherwise the cell is marked with *.
"""
import argparse, collections, json, os, statistics, subprocess, sys, time

HERE = os.path.dirname(os.path.abspath(__file__))
DUTS = ["null", "caracal", "bird2", "frr", "frr-c0", "openbgpd", "gobgpd", "rustybgp"]
VARIANTS = {"frr-c0": "--dut frr --flag coalesce0"}  # no initial coalescing delay
WORKLOADS = {
    "W1": ("1 sender x 100k prefixes", "--senders 1 --prefixes 100000"),
    "W2": ("10 senders x 50k distinct, re-advertised to all", "--senders 10 --prefixes 50000 --export"),
    "W3": ("1 sender x 1M prefixes", "--senders 1 --prefixes 1000000"),
    "W4": ("20 senders x the same 50k, re-advertised to all", "--senders 20 --prefixes 50000 --same --export"),
    "W5a": ("kernel FIB, 100k routes", "--fib --no-monitor --prefixes 100000"),
    "W5b": ("kernel FIB, 500k routes", "--fib --no-monitor --prefixes 500000"),
    "W6": ("250 Calico nodes x 400, to monitor only", "--senders 250 --prefixes 400 --profile calico"),
    "W6i": ("250 Calico nodes x 400 over iBGP (real Calico mesh), eBGP monitor", "--senders 250 --prefixes 400 --profile calico --ibgp"),
    "W6if": ("W6i into the kernel FIB, no monitor", "--senders 250 --prefixes 400 --profile calico --ibgp --fib --no-monitor"),
    "W6x": ("W6 re-advertised to all 250 peers", "--senders 250 --prefixes 400 --profile calico --export"),
    "W7c": ("W2 with all 10 sessions closed", "--senders 10 --prefixes 50000 --export --close"),
    "W8": ("W1, then 10% of it flapping for 10 s, uncapped", "--prefixes 100000 --flap 10"),
    "W8c": ("W1, then 10% flapping for 10 s, capped at 20k changes/s", "--prefixes 100000 --flap 10 --flap-rate 20000"),
}
PHASE = {"W7c": "withdraw", "W8": "flap", "W8c": "flap"}  # announce otherwise
NO_FIB = {"null", "openbgpd", "gobgpd"}


def busy_share(seconds=1.0):
    def read():
        f = [int(v) for v in open("/proc/stat").readline().split()[1:]]
        return sum(f[i] for i in (0, 1, 2, 5, 6))
    a = read()
    time.sleep(seconds)
    return (read() - a) / 100.0 / seconds


def mem_available_gb():
    return next(int(l.split()[1]) for l in open("/proc/meminfo") if l.startswith("MemAvailable")) / 2**20


def wait_quiet(limit):
    end = time.time() + limit
    while time.time() < end and (busy_share() > 0.1 or mem_available_gb() < 6):
        pass


def run(a):
    only = a.only.split(",") if a.only else list(WORKLOADS)
    todo = [(r, w, d) for r in range(a.runs) for w in only for d in a.duts.split(",")
            if not ("--fib" in WORKLOADS[w][1] and d in NO_FIB)]
    dead = set()
    for r, w, d in todo:
        if (w, d) in dead:
            continue
        wait_quiet(a.quiet)
        cmd = [f"{HERE}/target/release/bgpload", "run", *VARIANTS.get(d, f"--dut {d}").split(), "--label", w, "--timeout", str(a.timeout)]
        start = time.time()
        p = subprocess.run(["nice", "-n", "-20"] + cmd + WORKLOADS[w][1].split(), capture_output=True, text=True)
        line = p.stdout.strip().splitlines()[-1:] or [json.dumps(
            {"label": w, "dut": d, "ok": False, "error": f"harness died: {p.returncode} {p.stderr[-200:]}"})]
        j = json.loads(line[0])
        j["dut"] = d
        with open(a.out, "a") as f:
            f.write(json.dumps(j) + "\n")
        an, wd = j.get("announce", {}), j.get("withdraw", {})
        print(f"{time.strftime('%H:%M:%S')} {w} {d} run {r + 1}: {time.time() - start:.0f}s wall;",
              {k: an.get(k) for k in ("converge_s", "fib_s", "idle_s", "cpu_s", "rss_peak_mb", "other_cpu_s")},
              "down", wd.get("converge_s", wd.get("fib_s")), j.get("error", "")[:200], flush=True)
        if not j["ok"] and "timeout" in j.get("error", ""):
            dead.add((w, d))  # no point in repeating a timeout


def quiet(p):
    return p["other_cpu_s"] < 0.08 * (p["idle_s"] + 0.6) + 0.15


def cell(phases, *names, fmt="{:.2f}"):
    """Median of the first name present, over quiet runs when there are two."""
    calm = [p for p in phases if quiet(p)]
    use, mark = (calm, "") if len(calm) >= min(2, len(phases)) else (phases, "*")
    values = [next(p[n] for n in names if n in p) for p in use if any(n in p for n in names)]
    return (fmt.format(statistics.median(values)) + mark, len(values)) if values else ("-", 0)


def table(a):
    rows = collections.defaultdict(list)
    for line in open(a.out):
        j = json.loads(line)
        rows[j["label"], j["dut"]].append(j)
    duts = DUTS + sorted({d for _, d in rows} - set(DUTS))
    for what, names in (("Convergence, s", ("fib_s", "settled_s")), ("CPU, s", ("cpu_s",)), ("Peak RSS, MB", ("rss_peak_mb",))):
        print(f"\n### {what} (medians; the best real speaker in bold)\n\n| workload | {' | '.join(duts)} |\n|---|{'--:|' * len(duts)}")
        for w in WORKLOADS:
            if w == "W8c" and names[0] == "fib_s":
                continue  # paced by the cap
            cells = {}
            for d in duts:
                ps = [j[PHASE.get(w, "announce")] for j in rows.get((w, d), []) if PHASE.get(w, "announce") in j]
                fmt = "{:.0f}" if names[0] == "rss_peak_mb" else "{:.2f}"
                cells[d] = cell(ps, *names, fmt=fmt)[0] if ps else ("fail" if (w, d) in rows else "")
            real = [float(c.rstrip("*")) for d, c in cells.items() if d != "null" and c[:1].isdigit()]
            bold = lambda d: f"**{cells[d]}**" if d != "null" and cells[d][:1].isdigit() and float(cells[d].rstrip("*")) == min(real) else cells[d]
            if real:
                print(f"| {w} | {' | '.join(bold(d) for d in duts)} |")
    for w, (title, _) in WORKLOADS.items():
        if not any((w, d) in rows for d in duts):
            continue
        phase = PHASE.get(w, "announce")
        extra = {"flap": "changes/s"}.get(phase, "updates to monitor")
        print(f"\n### {w}: {title}\n")
        print(f"| speaker | converge s | idle s | CPU s | peak RSS MB | {extra} | withdraw-all s | withdraw CPU s | runs |")
        print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
        for d in duts:
            js = rows.get((w, d), [])
            ps, ws = [[j[k] for j in js if k in j] for k in (phase, "withdraw")]
            if not ps:
                if js:
                    print(f"| {d} | failed: {js[-1].get('error', '')[:110]} | | | | | | | {len(js)} |")
                continue
            conv, n = cell(ps, "fib_s", "converge_s")
            ex = cell(ps, "changes_per_s", "mon_updates", fmt="{:.0f}")[0].rstrip("*")
            cpu = cell(ps, "cpu_s")[0]
            bad = sum(not j["ok"] for j in js)
            print(f"| {d} | {conv} | {cell(ps, 'idle_s')[0]} | {cpu} | {cell(ps, 'rss_peak_mb', fmt='{:.0f}')[0].rstrip('*')} | {ex} "
                  f"| {cell(ws, 'fib_s', 'converge_s')[0]} | {cell(ws, 'cpu_s')[0]} | {n}{f' ({bad} failed)' if bad else ''} |")


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("action", choices=["run", "table"])
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("--only", default="")
    p.add_argument("--duts", default=",".join(DUTS))
    p.add_argument("--out", default="results.jsonl")
    p.add_argument("--timeout", type=int, default=180)
    p.add_argument("--quiet", type=int, default=30, help="longest wait for a quiet machine, seconds")
    args = p.parse_args()
    sys.exit({"run": run, "table": table}[args.action](args))
