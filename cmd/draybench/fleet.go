package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// leastIdle is the share of idle processor time, in percent, below which a measurement of a fleet
	// is void: all members, their clients and the origin share the processor of this machine.
	leastIdle = 15
	// zoneDelay is the round-trip time between members. Each member is in a zone of its own.
	zoneDelay = 500 * time.Microsecond
	// stepBytes is the distance between the offsets at which fleetDelay measures the delay, in bytes.
	stepBytes = 64 << 10
)

// fleetConfig is drayConfig for a member of a fleet.
const fleetConfig = `
listeners:
  - {name: plain, address: "{plain}", role: mirror, upstreams: [origin]}
upstreams:
  - {name: origin, kind: oci, url: "http://{origin}", prefetch: {enabled: false}PARALLEL}
metadata: {url: "redis://REDIS/0"}
fleet: {address: "{secure}", advertise: "ADVERTISE", secret_file: "SECRET", zone: "ZONE"}
cache: {directory: "{dir}/cache"}
admin: {address: "off"}
log: {level: error, access: false}
BUCKET`

// members are the drays of a fleet, with their Redis.
type members struct {
	b       fleets
	redis   string // host:port of the Redis
	secret  string // path of the file with the fleet's secret
	setup   fleetSetup
	origin  *origin
	running []*running
	roads   []*road
	store   *process
}

// fleetSetup has the settings in which the measured fleets differ.
type fleetSetup struct {
	bucket  string // the configuration's line about the bucket, or empty
	inOrder bool   // a member fetches each layer by one request
}

// fleetOf starts a Redis, and n members with empty caches in front of an origin. The caller stops
// them.
func (b fleets) fleetOf(ctx context.Context, n int, o *origin, setup fleetSetup) (*members, error) {
	dir, err := os.MkdirTemp(b.dir, "fleet")
	if err != nil {
		return nil, err
	}
	f := &members{b: b, secret: filepath.Join(dir, "secret"), setup: setup, origin: o}
	if err := os.WriteFile(f.secret, []byte(strings.Repeat("a secret of this run ", 2)), 0o600); err != nil {
		return nil, err
	}
	if f.store, f.redis, err = b.startRedis(ctx); err != nil {
		return nil, err
	}
	for range n {
		if _, err := f.add(ctx); err != nil {
			f.stop()
			return nil, fmt.Errorf("start a fleet: %w", err)
		}
	}
	return f, nil
}

// add starts one more member, in a zone of its own.
func (f *members) add(ctx context.Context) (*running, error) {
	d, _ := f.b.dray()
	way, err := openRoad(zoneDelay/2, nil)
	if err != nil {
		return nil, err
	}
	f.roads = append(f.roads, way)
	parallel := ""
	if f.setup.inOrder {
		parallel = ", parallel_fill: {streams: 1}"
	}
	config := strings.NewReplacer("PARALLEL", parallel, "REDIS", f.redis, "ADVERTISE", way.address, "SECRET", f.secret, "ZONE", fmt.Sprint("zone", len(f.running)), "BUCKET", f.setup.bucket).Replace(fleetConfig)
	p := drayWith(d.path, config)
	p.env = append(p.env, "AWS_ACCESS_KEY_ID="+bucketUser, "AWS_SECRET_ACCESS_KEY="+bucketSecret, "AWS_EC2_METADATA_DISABLED=true")
	r, err := f.b.start(ctx, p, f.origin)
	if err != nil {
		return nil, err
	}
	way.lead(r.secure)
	f.running = append(f.running, r)
	return r, nil
}

func (f *members) stop() {
	for _, r := range f.running {
		r.stop()
	}
	for _, r := range f.roads {
		r.close()
	}
	f.store.stop()
}

// fleet measures fleets of dray. It compares pulls by many clients of all five members with a pull
// by one client of one member. It measures the delay between the holder, which is the member that
// fetches a layer, and a follower. It also measures a member that has lost its cache and reads from
// a bucket, and compares five drays with five processes of distribution.
func (b *bench) fleet(ctx context.Context) error {
	if _, ok := b.dray(); !ok || b.redis == "" {
		return nil
	}
	return fleets{b}.measure(ctx)
}

// fleets is a bench with the measurements of the scenario fleet.
type fleets struct{ *bench }

func (b fleets) measure(ctx context.Context) error {
	img, err := newImage("bench/fleet", "v1", b.plan.FleetLayers, b.plan.FleetLayer)
	if err != nil {
		return err
	}
	line := shape{RTT: b.plan.RTT, Total: b.plan.FleetLine}
	for _, clients := range []int{1, b.plan.FleetClients} {
		o, err := openOrigin(line, img)
		if err != nil {
			return err
		}
		err = b.fleetHerd(ctx, o, img, clients)
		o.close()
		if err != nil {
			return err
		}
	}
	for _, d := range []delay{{true, fleetMedian, fleetTail}, {false, rangesMedian, rangesTail}} {
		if err := b.fleetDelay(ctx, line, d); err != nil {
			return err
		}
	}
	if err := b.fleetBucket(ctx, line); err != nil {
		return err
	}
	return b.fleetBeside(ctx, line)
}

// fleetHerd makes clients pull an image: one client of one member, or several clients of each
// member.
func (b fleets) fleetHerd(ctx context.Context, o *origin, img *image, clients int) error {
	f, err := b.fleetOf(ctx, 5, o, fleetSetup{})
	if err != nil {
		return err
	}
	defer f.stop()
	asked := f.running
	if clients == 1 {
		asked = asked[:1]
	}
	idle := startIdle()
	began, errs := time.Now(), make([]error, len(asked))
	var pulling sync.WaitGroup
	for i, r := range asked {
		pulling.Go(func() { _, _, errs[i] = b.loader.pulls(ctx, r.plain, img, clients, b.plan.Pulls) })
	}
	pulling.Wait()
	wall := time.Since(began).Seconds()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	valid := b.valid(idle)
	if clients > 1 {
		b.results.add(fleetBytes, dray, float64(o.counts().Bytes)/float64(img.size()))
	}
	switch {
	case !valid:
	case clients == 1:
		b.results.add(fleetAlone, dray, wall)
	default:
		b.results.add(fleetWall, dray, wall)
	}
	return nil
}

// valid records how much of the processor was idle, and reports whether it was enough for a valid
// measurement. In a quick run, every measurement is valid.
func (b fleets) valid(idle func() float64) bool {
	percent := idle()
	b.results.add(fleetIdle, dray, percent)
	if percent >= leastIdle || b.plan.Quick {
		return true
	}
	b.log.Warn("this measurement of a fleet is void: too little of the processor was idle", "idle_percent", int(percent), "least", leastIdle)
	return false
}

// delay is a measurement of the time from the arrival of bytes at a client of the holder to their
// arrival at a client of a follower.
type delay struct {
	inOrder      bool // see fleetSetup
	median, tail metric
}

// fleetDelay makes a client of the holder and a client of a follower read one layer, and compares
// when an offset reaches the two clients. If the holder fetches ranges in parallel, the ranges
// arrive out of order. When the first missing range arrives, the client of the holder gets all
// ranges up to the next gap at once. The follower still has to get these bytes from the holder.
// So with parallel ranges, the delay depends mostly on the rate at which the follower gets bytes.
func (b fleets) fleetDelay(ctx context.Context, line shape, m delay) error {
	samples := b.plan.FleetSamples
	img, err := newImage("bench/delay", "v1", 1, int64(samples*3/2*stepBytes))
	if err != nil {
		return err
	}
	o, err := openOrigin(line, img)
	if err != nil {
		return err
	}
	defer o.close()
	f, err := b.fleetOf(ctx, 2, o, fleetSetup{inOrder: m.inOrder})
	if err != nil {
		return err
	}
	defer f.stop()
	// Each member gets the manifest, and so knows the size of the layer. Without the size, the first
	// request of a member would be for the whole layer, and not for a part.
	for _, r := range f.running {
		c := b.loader.client(r.plain, false)
		if _, err := c.get(ctx, img.byTag(), ""); err != nil {
			return err
		}
		c.close()
	}
	idle := startIdle()
	begun := make(chan struct{})
	var arrived [2][]time.Time
	var errs [2]error
	var reading sync.WaitGroup
	reading.Go(func() { arrived[0], errs[0] = arrivals(ctx, f.running[0].plain, img, func() { close(begun) }) })
	reading.Go(func() {
		select {
		case <-begun:
		case <-ctx.Done():
		}
		arrived[1], errs[1] = arrivals(ctx, f.running[1].plain, img, func() {})
	})
	reading.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	if !b.valid(idle) {
		return nil
	}
	var delays []time.Duration
	for i := len(arrived[0]) - samples; i < len(arrived[0]); i++ {
		delays = append(delays, arrived[1][i].Sub(arrived[0][i]))
	}
	slices.Sort(delays)
	b.results.add(m.median, dray, milliseconds(delays[len(delays)/2]))
	b.results.add(m.tail, dray, milliseconds(delays[len(delays)*99/100]))
	return nil
}

// arrivals reads a layer, and returns the time at which each step of stepBytes had arrived. It
// calls onFirst once: after the first step, or when it fails before that.
func arrivals(ctx context.Context, address string, img *image, onFirst func()) ([]time.Time, error) {
	once := sync.OnceFunc(onFirst)
	defer once()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+img.blob(img.layers[0]), nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("layer from a member: %s", resp.Status)
	}
	var times []time.Time
	buf, read := make([]byte, stepBytes), 0
	for {
		n, err := resp.Body.Read(buf)
		now := time.Now()
		for read += n; len(times) < read/stepBytes; {
			times = append(times, now)
			once()
		}
		if errors.Is(err, io.EOF) && len(times) == len(img.layers[0].bytes)/stepBytes {
			return times, nil
		}
		if err != nil {
			return nil, fmt.Errorf("layer from a member, after %d bytes: %w", read, err)
		}
	}
}

// startIdle returns a function that returns how much processor time was idle since the call of
// startIdle, in percent.
func startIdle() func() float64 {
	all, idle := processorTimes()
	return func() float64 {
		nowAll, nowIdle := processorTimes()
		return 100 * float64(nowIdle-idle) / max(1, float64(nowAll-all))
	}
}

// processorTimes returns the number of all ticks and of the idle ticks of all processors
// (proc_stat(5)).
func processorTimes() (all, idle int64) {
	var t [8]int64
	line := firstLine(os.ReadFile("/proc/stat"))
	if _, err := fmt.Sscanf(line, "cpu %d %d %d %d %d %d %d %d", &t[0], &t[1], &t[2], &t[3], &t[4], &t[5], &t[6], &t[7]); err != nil {
		return 0, 0
	}
	for _, n := range t {
		all += n
	}
	return all, t[3] + t[4]
}
