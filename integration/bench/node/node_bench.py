#!/usr/bin/env python3
"""What a node agent costs and how fast it reacts, black box, in the three-host picture of hosts.py.

Usage: node_bench.py --impl calico | calico-iptables | "caracal PATH"  [--only NAME...] [--out FILE.jsonl] [--tag TEXT]
NAMES: start footprint endpoint block policy restart drift mesh cold scale (default: all, in this order); policy and scale
need policy, cold is scale without it.
Prints one row per measure and appends it to FILE: {impl, measure, unit, p50, p99, n, notes}. Links are harness-made for
every impl (as a CNI plugin makes them), so that the same work is measured. Kernel changes are taken from netlink
notifications with the time of receipt in this process, not by polling. CPU includes the helper programs that agents run.
"""
import argparse, collections, json, os, re, select, socket, struct, subprocess, sys, threading, time

a = argparse.ArgumentParser()
a.add_argument("--impl", required=True)
a.add_argument("--only", nargs="+", default=["start", "footprint", "endpoint", "block", "policy", "restart", "drift", "mesh", "cold", "scale"])
a.add_argument("--out")
a.add_argument("--tag", default="")
a = a.parse_args()

import hosts
from hosts import (NODES, NOW, PODS, R, TOR, WORK, agent, block_kv, cleanup, etcd, in_ns, make_bulk, make_link, meta, ns, ns_socket, res, seed, setup, sh, tor_ctl, wep)

sys.setswitchinterval(0.0005)
IMPL = a.impl.split("/")[0].split()[0] if not a.impl.startswith("/") else "caracal"
ME = "node2"
STATUS = "/calico/felix/v2/no-region/host/"
ALL32 = {n: {f"{v[1]}/32" for v in PODS.values() if v[0] == n} for n in NODES}
BLOCKS = {n: b for n, (_, b) in NODES.items()}


def row(measure, unit, values, notes=""):
    v = sorted(x for x in values if x is not None)
    miss = len(values) - len(v)
    q = lambda f: round(v[min(len(v) - 1, int(f * len(v)))], 4 if unit in ("s", "%") else 2) if v else None
    r = {"impl": IMPL, "measure": measure, "unit": unit, "p50": q(0.5), "p99": q(0.99), "n": len(v), "notes": notes + (f"; {miss} not seen" if miss else "")}
    if a.tag:
        r["run"] = a.tag
    print(json.dumps(r), flush=True)
    if a.out:
        with open(a.out, "a") as f:
            f.write(json.dumps(r) + "\n")


def slow(v):
    return " ".join(f"{x * 1000:.0f}" for x in sorted(x for x in v if x is not None)[-4:]) + " ms"


def ms(x):
    return None if x is None else x * 1000


# ---------------------------------------------------------------- kernel notifications
class Monitor(threading.Thread):
    """Route and nftables notifications of several namespaces: log = [(time, namespace, op, dst, type, proto)]."""

    def __init__(self):
        super().__init__(daemon=True)
        self.ep, self.by_fd, self.log, self.first, self.cv = select.epoll(), {}, [], {}, threading.Condition()
        self.nft = collections.Counter()

    def add(self, nsname, proto, group):
        s = ns_socket(nsname, socket.AF_NETLINK, socket.SOCK_RAW, proto)
        s.setsockopt(socket.SOL_SOCKET, 33, 32 << 20)  # SO_RCVBUFFORCE
        s.bind((0, 0))
        s.setsockopt(270, 1, group)  # SOL_NETLINK, NETLINK_ADD_MEMBERSHIP
        self.by_fd[s.fileno()] = (s, nsname, proto)
        self.ep.register(s.fileno(), select.EPOLLIN)

    def run(self):
        while True:
            for fd, _ in self.ep.poll():
                s, nsname, proto = self.by_fd[fd]
                try:
                    data = s.recv(1 << 20)
                except OSError:
                    self.log.append((NOW(), nsname, "overrun", "", 0, 0))
                    continue
                t, o = NOW(), 0
                with self.cv:
                    while o + 16 <= len(data):
                        ln, typ = struct.unpack_from("=IH", data, o)
                        if proto == 0 and typ in (24, 25):
                            self.route(t, nsname, "new" if typ == 24 else "del", data[o + 16:o + ln])
                        elif proto == 12 and typ >> 8 == 10:
                            self.nft[nsname, "transactions" if typ & 255 == 15 else "changes"] += 1
                        o += (ln + 3) & ~3
                    self.cv.notify_all()

    def route(self, t, nsname, op, d):
        fam, dlen, _, _, table, proto, _, typ = struct.unpack_from("=8B", d, 0)
        if fam != 2 or table != 254:
            return
        dst, o = "0.0.0.0", 12
        while o + 4 <= len(d):
            ln, at = struct.unpack_from("=HH", d, o)
            if at == 1:
                dst = socket.inet_ntoa(d[o + 4:o + 8])
            o += max((ln + 3) & ~3, 4)
        key = (nsname, op, f"{dst}/{dlen}")
        self.log.append((t, *key, typ, proto))
        self.first.setdefault(key, t)

    def reset(self):
        with self.cv:
            self.log, self.first = [], {}
            self.nft.clear()

    def wait(self, keys, timeout):
        """Waits until every (namespace, op, dst) was seen since reset; returns {key: time or None}."""
        end = NOW() + timeout
        keys = list(keys)
        with self.cv:
            while not all(k in self.first for k in keys) and NOW() < end:
                self.cv.wait(min(0.5, max(0.001, end - NOW())))
            return {k: self.first.get(k) for k in keys}


mon = Monitor()
status = collections.OrderedDict()  # key -> (time, value), newest


# ---------------------------------------------------------------- processes
def tree(pids):
    """pids and their children."""
    out = dict(pids)
    kids = collections.defaultdict(list)
    for p in os.listdir("/proc"):
        if p.isdigit():
            try:
                kids[int(open(f"/proc/{p}/stat").read().rsplit(")", 1)[1].split()[1])].append(int(p))
            except OSError:
                pass
    todo = list(pids.items())
    while todo:
        name, p = todo.pop()
        for k in kids.get(p, []):
            out[f"{name}>{k}"] = k
            todo.append((name, k))
    return out


def cpu(ag):
    """CPU seconds of the agents so far, with those of the programs they ran and reaped."""
    tot = 0
    for p in tree(ag.pids()).values():
        try:
            f = open(f"/proc/{p}/stat").read().rsplit(")", 1)[1].split()
            tot += sum(int(x) for x in f[11:15])
        except OSError:
            pass
    return tot / os.sysconf("SC_CLK_TCK")


def memory(ag):
    """MiB: rss, pss, and 'alone' = anonymous memory + each mapped file's largest resident size once (as if this node were alone on the machine)."""
    per, files, rss, pss, anon = {}, {}, 0, 0, 0
    for name, p in tree(ag.pids()).items():
        try:
            r = {k: int(v) for k, v in re.findall(r"^(\w+):\s+(\d+) kB", open(f"/proc/{p}/smaps_rollup").read(), re.M)}
            maps = open(f"/proc/{p}/smaps").read()
        except OSError:
            continue
        rss, pss, anon = rss + r["Rss"], pss + r["Pss"], anon + r["Anonymous"]
        mine = collections.Counter()
        for m in re.finditer(r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+ *(.*)\n((?:\w+:.*\n)*)", maps, re.M):
            if m[1].startswith("/"):
                k = {x: int(y) for x, y in re.findall(r"^(Rss|Anonymous):\s+(\d+) kB", m[2], re.M)}
                mine[m[1]] += k["Rss"] - k["Anonymous"]
        for f, kb in mine.items():
            files[f] = max(files.get(f, 0), kb)
        per[name.split(">")[0]] = per.get(name.split(">")[0], 0) + r["Rss"]
    mb = lambda x: round(x / 1024, 1)
    return {"rss": mb(rss), "pss": mb(pss), "alone": mb(anon + sum(files.values())), "per": {k: mb(v) for k, v in per.items()}}


def settle(ag, limit=40):
    """Until the agents use under 4 % of a core for a second; returns seconds waited."""
    t0 = NOW()
    while NOW() - t0 < limit:
        c = cpu(ag)
        time.sleep(1)
        if cpu(ag) - c < 0.04:
            break
    return NOW() - t0


def http_get(n, port, path):
    try:
        s = ns_socket(ns(n), socket.AF_INET, socket.SOCK_STREAM)
        s.settimeout(0.5)
        s.connect(("127.0.0.1", port))
        s.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        return int(s.recv(4096).split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def session_up(n):
    return bool(re.search(rf"^{n}\s+BGP\s.*Established", tor_ctl("show protocols"), re.M))


def session_since(n):
    m = re.search(rf"^{n}\s+BGP\s+\S+\s+\S+\s+(\S+)\s+Established", tor_ctl("show protocols"), re.M)
    return m and m[1]


def ready(n, since=None, limit=60):
    """Seconds until /readiness answers 2xx (when the agent has it) and the router's session with n is Established (a new one if since)."""
    t0 = NOW()
    th = tb = None
    while NOW() - t0 < limit and (th is None or tb is None):
        if th is None and 200 <= http_get(n, 9099, "/readiness") < 300:
            th = NOW() - t0
        if tb is None and (session_since(n) or since) != since:
            tb = NOW() - t0
        time.sleep(0.02)
    return th, tb


def kernel_clean(n):
    """The node as after a reboot, links kept: no agent routes, no tables, no conntrack entries."""
    h = ns(n)
    sh(f"ip -n {h} route flush proto bird; ip -n {h} route flush proto 80; ip -n {h} route flush type blackhole; ip netns exec {h} nft flush ruleset; ip netns exec {h} conntrack -F", check=False)
    sh(f"ip -n {h} route | grep ' dev cali' | cut -d' ' -f1 | sed 's/^/route del /' | ip -n {h} -force -batch -", check=False)


# ---------------------------------------------------------------- UDP flows
class Flow(threading.Thread):
    """A UDP stream from one namespace to another: sent[seq] = time, got = [(seq, time)]."""

    def __init__(self, src, dst, addr, port, rate=1000):
        super().__init__(daemon=True)
        self.tx, self.rx = ns_socket(ns(src), socket.AF_INET, socket.SOCK_DGRAM), ns_socket(ns(dst), socket.AF_INET, socket.SOCK_DGRAM)
        self.rx.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)
        self.rx.bind(("0.0.0.0", port))
        self.rx.settimeout(0.2)
        self.to, self.gap, self.sent, self.got, self.run_, self.last = (addr, port), 1 / rate, [], [], True, 0.0

    def start(self):
        super().start()
        self.r = threading.Thread(target=self.recv, daemon=True)
        self.r.start()
        return self

    def run(self):
        t = NOW()
        while self.run_:
            self.sent.append(NOW())
            try:
                self.tx.sendto(struct.pack("=I", len(self.sent) - 1), self.to)
            except OSError:
                pass  # refused or unreachable counts as lost
            t += self.gap
            d = t - NOW()
            if d > 0:
                time.sleep(d)
            else:
                t = NOW() if d < -0.05 else t

    def recv(self):
        while True:
            try:
                d = self.rx.recv(64)
                self.last = NOW()
                self.got.append((struct.unpack("=I", d)[0], self.last))
            except TimeoutError:
                if not self.run_:
                    return

    def stop(self):
        self.run_ = False
        self.join()
        self.r.join()
        self.tx.close()
        self.rx.close()
        return len(self.sent) - len({s for s, _ in self.got})


# ---------------------------------------------------------------- cluster state
agents = {}


def start_all(limit=60):
    """Starts every agent; returns seconds until all routes are everywhere and on the router."""
    mon.reset()
    t0 = NOW()
    for n in NODES:
        agents[n] = agents.get(n) or agent(a.impl, n)
        agents[n].start()
    keys = [(ns(n), "new", d) for n in NODES for d in ALL32[n] | {BLOCKS[m] for m in NODES if m != n}] + [(TOR, "new", b) for b in BLOCKS.values()]
    seen = mon.wait(keys, limit)
    return None if None in seen.values() else max(seen.values()) - t0, {k: v and round(v - t0, 2) for k, v in seen.items()}


def stop_all():
    for x in agents.values():
        x.stop()


bulk = []


def need_bulk(count=500):
    """Harness-made links of 500 more endpoints on node2, and the eight blocks that hold their addresses."""
    if not bulk:
        bulk.extend(make_bulk(ME, count))
        kv = [x for i in range((count + 61) // 62) for x in block_kv(ME, f"10.100.{i // 4}.{i % 4 * 64}/26")]
        etcd.puts(kv)
        time.sleep(3)
    return bulk


def bulk_wep(i):
    p, addr, ifc, uid = bulk[i]
    return wep(ME, p, addr, ifc, uid, slot=f"s{i}", role="bulk")


bulk_in = 0


def put_bulk(upto):
    global bulk_in
    need_bulk()
    etcd.puts(bulk_wep(i) for i in range(upto))
    etcd.deletes(bulk_wep(i)[0] for i in range(upto, bulk_in))
    bulk_in = upto


def policies(count, slots=500):
    """count policies, every one selecting some endpoint of node2: per slot a deny, a deny by selector, a deny by net and an allow."""
    for i in range(count):
        slot, j = i % slots, i // slots % 4
        rule = [{"action": "Deny", "protocol": "UDP", "destination": {"ports": [7001]}},
                {"action": "Deny", "protocol": "TCP", "source": {"selector": "app == 'pod-d'"}, "destination": {"ports": [8001 + i % 7]}},
                {"action": "Deny", "protocol": "UDP", "source": {"nets": [f"172.16.{i % 250}.0/24"]}, "destination": {"ports": [7002]}},
                {"action": "Allow"}][j]
        yield gnp(f"p-{i:04d}", 100 + i, f"slot == 's{slot}'", [rule])


def gnp(name, order, sel, ingress):
    m = meta(name, 50000 + order, annotations={"projectcalico.org/metadata": json.dumps({"name": name}, separators=(",", ":"))})
    return res("GlobalNetworkPolicy", "globalnetworkpolicies", m, {"tier": "default", "order": order, "selector": sel, "types": ["Ingress"], "ingress": ingress})


# ---------------------------------------------------------------- measures
def m_start():
    t, detail, c = [], [], 0
    for i in range(3):
        if i:
            stop_all()
            for n in NODES:
                kernel_clean(n)
            hosts.TOR_BIRD.kill9()  # or it would keep the routes as stale through graceful restart
            sh(f"ip -n {TOR} route flush proto bird")
            time.sleep(3)
        s, d = start_all()
        t.append(s)
        detail.append(d)
    last32 = max((v or 99) for (x, _, p), v in detail[-1].items() if p.endswith("/32"))
    row("start: three nodes at once, all routes everywhere", "s", t, f"includes the one-shot start-up step; last run: workload routes at {last32} s")
    stop_one = agents[ME]
    c = []
    for _ in range(3):
        stop_one.stop()
        kernel_clean(ME)
        time.sleep(2)
        mon.reset()
        t0 = NOW()
        stop_one.start()
        keys = [(ns(ME), "new", d) for d in ALL32[ME] | {BLOCKS[m] for m in NODES if m != ME}]
        seen = mon.wait(keys, 60)
        c.append(None if None in seen.values() else max(seen.values()) - t0)
    row("start: one node, the others up", "s", c, f"of which one-shot start-up step {stop_one.startup_s} s" if hasattr(stop_one, "startup_s") else "")
    settle(stop_one)
    row("CPU of one node until settled after start", "CPU s", [cpu(stop_one)], "without the one-shot start-up step")


def burst(first, count, rate, delete=False, status_wait=0):
    """Puts (or deletes) endpoints at a rate; per endpoint seconds until its kernel route came (went) and until its status key."""
    mon.reset()
    status.clear()
    sent, items = {}, [bulk_wep(i) for i in range(first, first + count)]
    t = NOW()
    c0 = cpu(agents[ME])
    for k, (key, obj) in enumerate(items):
        d = t + k / rate - NOW()
        if d > 0:
            time.sleep(d)
        sent[k] = NOW()
        etcd.delete(key) if delete else etcd.put(key, obj)
    op = "del" if delete else "new"
    keys = [(ns(ME), op, f"{bulk[first + k][1]}/32") for k in range(count)]
    seen = mon.wait(keys, 20)
    lat = [seen[x] and seen[x] - sent[k] for k, x in enumerate(keys)]
    want = [f"default%2f{bulk[first + k][0]}/endpoint/eth0" for k in range(count)]
    end = NOW() + status_wait
    find = lambda w: next((v for key, v in list(status.items()) if key.endswith(w)), None)
    while NOW() < end and not all(find(w) for w in want[-5:]):
        time.sleep(0.1)
    st = [(find(w) or (None,))[0] for w in want]
    return lat, [s and s - sent[k] for k, s in enumerate(st)], cpu(agents[ME]) - c0


def m_endpoint():
    need_bulk()
    settle(agents[ME])
    lat, st, _ = burst(0, 14, 0.5, status_wait=5)
    row("endpoint put -> status key, one each 2 s", "ms", [ms(x) for x in st], "EndpointReportingEnabled with its default EndpointReportingDelay of 1 s per write")
    burst(0, 14, 10, delete=True)
    settle(agents[ME])
    lat, st, _ = burst(0, 30, 3)
    row("endpoint put -> /32 in kernel, 3/s", "ms", [ms(x) for x in lat])
    lat, _, _ = burst(0, 30, 3, delete=True)
    row("endpoint delete -> route gone, 3/s", "ms", [ms(x) for x in lat])
    settle(agents[ME])
    c0 = cpu(agents[ME])
    lat, st, _ = burst(30, 200, 50)
    settle(agents[ME])
    c1 = cpu(agents[ME])
    row("endpoint put -> /32 in kernel, 50/s", "ms", [ms(x) for x in lat])
    row("CPU per endpoint put, 50/s", "CPU ms", [(c1 - c0) * 5], "all agent processes of the node, settling included")
    lat, _, _ = burst(30, 200, 50, delete=True)
    settle(agents[ME])
    row("endpoint delete -> route gone, 50/s", "ms", [ms(x) for x in lat])
    row("CPU per endpoint delete, 50/s", "CPU ms", [(cpu(agents[ME]) - c1) * 5], "all agent processes of the node, settling included")


def m_block():
    put_t, gone_t = collections.defaultdict(list), collections.defaultdict(list)
    where = {"blackhole on its node": ns("node1"), "route on another node": ns("node2"), "route on a third node": ns("node3"), "route on the router": TOR}
    for i in range(20):
        b = f"10.100.{200 + i}.0/26"
        kv = block_kv("node1", b)
        for op, out in (("new", put_t), ("del", gone_t)):
            time.sleep(0.4)
            mon.reset()
            if op == "new":
                etcd.puts(kv[:-1])
                t0 = NOW()
                etcd.put(*kv[-1])
            else:
                t0 = NOW()
                etcd.deletes(k for k, _ in reversed(kv))
            seen = mon.wait([(w, op, b) for w in where.values()], 10)
            for name, w in where.items():
                v = seen[w, op, b]
                out[name].append(v and v - t0)
    for name in where:
        row(f"new block -> {name}", "ms", [ms(x) for x in put_t[name]], "from the put of the confirmed affinity")
    for name in where:
        row(f"block released -> {name} gone", "ms", [ms(x) for x in gone_t[name]])


def policy_changes(label, n=20):
    f = Flow("pod-a", "pod-c", PODS["pod-c"][1], 7777).start()
    time.sleep(1)
    key, obj = gnp("deny-7777", 10, "app == 'pod-c'", [{"action": "Deny", "protocol": "UDP", "destination": {"ports": [7777]}}, {"action": "Allow"}])
    deny, allow = [], []
    settle(agents[ME])
    mon.reset()
    c0 = cpu(agents[ME])
    for i in range(n):
        t0 = NOW()
        etcd.put(key, obj)
        while NOW() - t0 < 20 and NOW() - max(f.last, t0) < 0.15:
            time.sleep(0.01)
        deny.append(f.last - t0 if f.last > t0 and NOW() - t0 < 20 else 0.0 if f.last <= t0 else None)
        time.sleep(0.35 + 0.07 * (i % 5))
        k, t0 = len(f.got), NOW()
        etcd.delete(key)
        while NOW() - t0 < 20 and len(f.got) == k:
            time.sleep(0.005)
        allow.append(f.got[k][1] - t0 if len(f.got) > k else None)
        time.sleep(0.35 + 0.07 * (i % 7))
    settle(agents[ME])
    c = cpu(agents[ME]) - c0
    f.stop()
    nft = mon.nft[ns(ME), "changes"], mon.nft[ns(ME), "transactions"]
    row(f"policy put -> flow denied, {label}", "ms", [ms(x) for x in deny], "UDP probe each ms; time of the last packet that came through; slowest " + slow(deny))
    row(f"policy delete -> flow allowed, {label}", "ms", [ms(x) for x in allow], "slowest " + slow(allow))
    row(f"CPU per policy change, {label}", "CPU ms", [c * 1000 / (2 * n)], "put or delete, all agent processes of the node, settling included")
    row(f"nftables messages per policy change, {label}", "messages", [nft[0] / (2 * n)], f"notifications of the kernel; {nft[1]} transactions for {2 * n} changes")


def m_policy():
    policy_changes("no other policy")


def idle(ag, secs=20):
    c = cpu(ag)
    time.sleep(secs)
    return (cpu(ag) - c) / secs * 100


def footprint(label):
    settle(agents[ME], 60)
    m = memory(agents[ME])
    row(f"memory of a node's agents (PSS), {label}", "MiB", [m["pss"]], f"RSS sum {m['rss']}; alone on a machine {m['alone']}; RSS by process {m['per']}")
    row(f"memory of a node's agents (alone), {label}", "MiB", [m["alone"]], "anonymous + every mapped file once")
    row(f"idle CPU, {label}", "%", [idle(agents[ME])], "of one core, over 20 s, all agent processes of the node")


def m_footprint():
    if bulk_in:
        put_bulk(0)
    footprint("1 local endpoint of 3 in the cluster")
    row("processes per node", "", [len(tree(agents[ME].pids()))], " ".join(agents[ME].pids()))
    row("binaries on disk", "MiB", [sum(os.path.getsize(os.path.realpath(f)) for f in agents[ME].files) / 2**20],
        ", ".join(f"{os.path.basename(f)} {os.path.getsize(os.path.realpath(f)) / 2**20:.1f}" for f in agents[ME].files))


def m_restart():
    for group in agents[ME].groups:
        settle(agents[ME])
        f = Flow("pod-a", "pod-c", PODS["pod-c"][1], 7778).start()
        g = Flow("pod-c", "pod-d", PODS["pod-d"][1], 7779).start()
        time.sleep(1)
        mon.reset()
        since = session_since(ME)
        before = agents[ME].services[agents[ME].groups[group][0]].pid
        agents[ME].kill9(group)
        bgp = group != "felix"
        time.sleep(0.05)
        t0, th, tb = NOW(), None, None
        while NOW() - t0 < 30 and (th is None or (bgp and tb is None)):
            if th is None and agents[ME].services[agents[ME].groups[group][0]].pid not in (None, before) and (group == "bgp" or 200 <= http_get(ME, 9099, "/readiness") < 300):
                th = NOW() - t0 + 0.05
            if bgp and tb is None:
                s = session_since(ME)
                tb = NOW() - t0 + 0.05 if s and s != since else None
            time.sleep(0.02)
        time.sleep(max(0, 8 - (NOW() - t0)))
        settle(agents[ME], 20)
        lost = [f.stop(), g.stop()]
        log = [x for x in mon.log if x[1] == ns(ME)]
        row(f"kill -9 of {group}: packets lost of a 1,000/s stream each way", "packets", lost, f"of {len(f.sent)} and {len(g.sent)}; stream into and out of the node")
        row(f"kill -9 of {group}: kernel route changes on the node", "changes", [len(log)], f"new {sum(x[2] == 'new' for x in log)}, del {sum(x[2] == 'del' for x in log)}")
        row(f"kill -9 of {group}: nftables changes on the node", "changes", [mon.nft[ns(ME), "changes"]], f"{mon.nft[ns(ME), 'transactions']} transactions")
        others = [x for x in mon.log if x[1] != ns(ME)]
        row(f"kill -9 of {group}: kernel route changes on other nodes and the router", "changes", [len(others)])
        row(f"kill -9 of {group}: until ready", "s", [max(x for x in (th, tb) if x is not None) if th or tb else None],
            f"readiness {th and round(th, 2)}, BGP session with the router {tb and round(tb, 2)}")


def m_drift():
    mon.reset()
    t0 = NOW()
    mine, other = PODS["pod-c"][1], BLOCKS["node1"]
    sh(f"ip -n {ns(ME)} route del {mine}; ip -n {ns(ME)} route del {other}")
    seen = mon.wait([(ns(ME), "new", f"{mine}/32"), (ns(ME), "new", other)], 100)
    for name, k in (("a workload's /32", f"{mine}/32"), ("another node's /26", other)):
        v = seen[ns(ME), "new", k]
        row(f"route deleted by hand: {name} is back", "s", [v and v - t0], "limit 100 s")


def m_mesh():
    kv = []
    for i in range(100):
        n, b = f"ghost-{i:03d}", f"10.100.{20 + i}.0/26"
        kv.append(res("Node", "nodes", meta(n, 300 + i), {"bgp": {"ipv4Address": f"192.168.174.{10 + i}/24"}}, status={}))
        kv += block_kv(n, b)
    ag = agents["node1"]
    settle(ag)
    base = memory(ag)
    etcd.puts(kv)
    time.sleep(2)
    settle(ag, 20)
    live = memory(ag)
    ag.stop()
    time.sleep(1)
    t0 = NOW()
    ag.start()
    cfg = None
    path = f"{WORK}/node1/etc/calico/confd/config/bird.cfg"
    th = tb = None
    since = session_since("node1")
    while NOW() - t0 < 40 and (th is None or tb is None or (IMPL.startswith("calico") and cfg is None)):
        if cfg is None and os.path.exists(path) and open(path).read().count("bgp Mesh_") >= 102:
            cfg = NOW() - t0
        if th is None and 200 <= http_get("node1", 9099, "/readiness") < 300:
            th = NOW() - t0
        if tb is None and (session_since("node1") or since) != since:
            tb = NOW() - t0
        time.sleep(0.02)
    time.sleep(max(0, 20 - (NOW() - t0)))
    c = cpu(ag)
    m = memory(ag)
    if cfg is not None:
        row("100 more nodes: start -> BGP configuration rendered", "s", [cfg], "bird.cfg with 102 mesh peers")
    row("100 more nodes: start -> session with the router", "s", [tb], f"readiness at {th and round(th, 2)} s")
    row("100 more nodes: CPU in the first 20 s", "CPU s", [c])
    row("100 more nodes: memory of a node's agents (alone)", "MiB", [m["alone"]], f"before {base['alone']}; after the puts, not restarted {live['alone']}; PSS {m['pss']}; RSS by process {m['per']}")
    c0 = cpu(ag)
    time.sleep(10)
    row("100 more nodes: idle CPU", "%", [(cpu(ag) - c0) * 10], "of one core, over 10 s; the 100 peers do not answer")
    etcd.deletes(k for k, _ in reversed(kv))
    settle(ag, 20)


def m_cold():
    """Cold start with 500 endpoints and no policy."""
    put_bulk(500)
    footprint("501 local endpoints")
    for rnd in range(3):
        agents[ME].stop()
        kernel_clean(ME)
        time.sleep(2)
        mon.reset()
        t0 = NOW()
        agents[ME].start()
        keys = [(ns(ME), "new", f"{bulk[i][1]}/32") for i in range(500)]
        seen = mon.wait(keys, 90)
        settle(agents[ME], 60)
        r32 = [seen[k] for k in keys]
        row("cold start, 500 endpoints, no policy: all routes", "s", [None if None in r32 else max(r32) - t0], f"first {min(x for x in r32 if x) - t0:.2f} s" if any(r32) else "")
        row("cold start, 500 endpoints, no policy: CPU until settled", "CPU s", [cpu(agents[ME])], "without the one-shot start-up step")


def m_scale():
    put_bulk(500)
    footprint("501 local endpoints")
    etcd.puts(policies(2000))
    t0 = NOW()
    t = settle(agents[ME], 90)
    row("2,000 policies put at once: until settled", "s", [t], "CPU under 4 % of a core for 1 s")
    policy_changes("2,000 policies on 500 endpoints", 20)
    # cold start: node2 as after a reboot
    rx = {p: ns_socket(ns("bulk"), socket.AF_INET, socket.SOCK_DGRAM) for p in (7000, 7001)}
    for p, s in rx.items():
        s.setsockopt(socket.SOL_SOCKET, 33, 32 << 20)
        s.bind(("0.0.0.0", p))
        s.settimeout(0.3)
    tx = ns_socket(ns("pod-d"), socket.AF_INET, socket.SOCK_DGRAM)
    for rnd in range(2):
        agents[ME].stop()
        kernel_clean(ME)
        time.sleep(2)
        first, leaks, stop = {}, [], False
        mon.reset()
        t0 = NOW()

        def send():
            k = 0
            while not stop:
                t = NOW()
                for i in range(500):
                    for p in rx:
                        try:
                            tx.sendto(struct.pack("=I", i), (bulk[i][1], p))
                        except OSError:
                            pass
                time.sleep(max(0.05, 0.25 - (NOW() - t)))

        def recv(p):
            while not stop:
                try:
                    i = struct.unpack("=I", rx[p].recv(64))[0]
                    if p == 7000:
                        first.setdefault(i, NOW() - t0)
                    else:
                        leaks.append(NOW() - t0)
                except TimeoutError:
                    pass
        th = [threading.Thread(target=send, daemon=True)] + [threading.Thread(target=recv, args=(p,), daemon=True) for p in rx]
        agents[ME].start()
        for x in th:
            x.start()
        keys = [(ns(ME), "new", f"{bulk[i][1]}/32") for i in range(500)] + [(ns(ME), "new", BLOCKS["node1"])]
        seen = mon.wait(keys, 90)
        while NOW() - t0 < 90 and len(first) < 500:
            time.sleep(0.05)
        settle(agents[ME], 60)
        c = cpu(agents[ME])
        stop = True
        for x in th:
            x.join()
        r32 = [seen[k] for k in keys[:-1]]
        row("cold start, 500 endpoints and 2,000 policies: all routes", "s", [None if None in r32 else max(r32) - t0], f"first {min(x for x in r32 if x) - t0:.2f} s" if any(r32) else "")
        row("cold start, 500 endpoints and 2,000 policies: all 500 reachable on the allowed port", "s", [max(first.values()) if len(first) == 500 else None], f"{len(first)} of 500; probed each 0.25 s")
        row("cold start, 500 endpoints and 2,000 policies: packets on the denied port let through", "packets", [len(leaks)], f"last at {max(leaks):.2f} s" if leaks else "")
        row("cold start, 500 endpoints and 2,000 policies: CPU until settled", "CPU s", [c], "without the one-shot start-up step")
    m = memory(agents[ME])
    row("memory of a node's agents (alone), 501 endpoints and 2,000 policies", "MiB", [m["alone"]], f"PSS {m['pss']}; RSS by process {m['per']}")


def main():
    setup()
    seed(False)
    etcd.put(*res("FelixConfiguration", "felixconfigurations", meta("default", 7), {"endpointReportingEnabled": True, "logSeverityScreen": "Info", "reportingInterval": "0s"}))
    for p in PODS:
        make_link(p)
    mon.start()
    for x in [ns(n) for n in NODES] + [TOR]:
        mon.add(x, 0, 7)  # RTNLGRP_IPV4_ROUTE
    mon.add(ns(ME), 12, 7)  # NFNLGRP_NFTABLES
    etcd.watch(STATUS, lambda t, op, k, v: op == "PUT" and status.setdefault(k, (t, v)))
    t0 = NOW()
    if "start" not in a.only:
        if start_all()[0] is None:
            print("warning: not all routes came within 60 s", file=sys.stderr)
    row("load average of the machine, at the start", "", [os.getloadavg()[0]], "two cores")
    for name in a.only:
        t = NOW()
        try:
            globals()[f"m_{name}"]()
        except Exception as e:  # a measure that cannot be taken does not end the run
            row(f"{name}: harness error", "", [], repr(e)[:200])
        print(f"# {name}: {NOW() - t:.0f} s", file=sys.stderr, flush=True)
    print(f"# total {NOW() - t0:.0f} s", file=sys.stderr)


try:
    main()
finally:
    cleanup()
