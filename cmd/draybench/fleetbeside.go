package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// distributionFleetConfig is the configuration of several processes of distribution that share a
// bucket and a Redis. The debug listener only shows that the process is up.
const distributionFleetConfig = `
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage:
  s3: {accesskey: USER, secretkey: SECRET, region: eu-west-1, regionendpoint: "http://BUCKET", forcepathstyle: true, secure: false, bucket: shared, rootdirectory: /distribution}
  cache: {blobdescriptor: redis}
  redirect: {disable: true}
redis: {addrs: ["REDIS"]}
http: {addr: "{plain}", debug: {addr: "{secure}"}}
proxy: {remoteurl: "http://{origin}"}
`

// fleetBeside makes a herd pull an image from five drays, and then an equal herd from five
// processes of distribution. The five servers share a Redis and a bucket. The image is smaller than
// in fleetHerd, because distribution fetches it once for each client.
func (b fleets) fleetBeside(ctx context.Context, line shape) error {
	i := slices.IndexFunc(b.peers, func(p peer) bool { return p.name == distribution })
	if i < 0 || b.gateway == "" {
		return nil
	}
	img, err := newImage("bench/fleets", "v1", b.plan.FleetLayers, b.plan.FleetLayer/10)
	if err != nil {
		return err
	}
	for _, name := range []string{dray, distribution} {
		if err := b.fleetOfEither(ctx, name, b.peers[i].path, line, img); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (b fleets) fleetOfEither(ctx context.Context, name, path string, line shape, img *image) error {
	o, err := openOrigin(line, img)
	if err != nil {
		return err
	}
	defer o.close()
	_, way, stop, err := b.startGateway(ctx)
	if err != nil {
		return err
	}
	defer stop()
	var asked []*running
	if name == dray {
		f, err := b.fleetOf(ctx, 5, o, fleetSetup{bucket: fmt.Sprintf("bucket: {url: \"s3://shared/bench\", endpoint: \"http://%s\", path_style: true, region: eu-west-1}\n", way.address)})
		if err != nil {
			return err
		}
		defer f.stop()
		asked = f.running
	} else {
		store, address, err := b.startRedis(ctx)
		if err != nil {
			return err
		}
		defer store.stop()
		config := strings.NewReplacer("USER", bucketUser, "SECRET", bucketSecret, "BUCKET", way.address, "REDIS", address).Replace(distributionFleetConfig)
		p := peer{name: distribution, path: path, launch: func(s site) ([][]string, error) {
			file, err := s.write("fleet.yaml", config)
			return [][]string{{"serve", file}}, err
		}}
		for range 5 {
			r, err := b.start(ctx, p, o)
			if err != nil {
				return err
			}
			defer r.stop()
			asked = append(asked, r)
		}
	}
	began, errs := time.Now(), make([]error, len(asked))
	var pulling sync.WaitGroup
	for i, r := range asked {
		pulling.Go(func() { _, _, errs[i] = b.loader.pulls(ctx, r.plain, img, b.plan.FleetClients, b.plan.Pulls) })
	}
	pulling.Wait()
	b.results.add(fleetsWall, name, time.Since(began).Seconds())
	b.results.add(fleetsBytes, name, float64(o.counts().Bytes)/float64(img.size()))
	return errors.Join(errs...)
}

// startRedis starts a Redis that keeps nothing on disk.
func (b fleets) startRedis(ctx context.Context) (store *process, address string, err error) {
	dir, err := os.MkdirTemp(b.dir, "redis")
	if err != nil {
		return nil, "", err
	}
	ports, err := freeAddresses(1)
	if err != nil {
		return nil, "", err
	}
	host, port, err := net.SplitHostPort(ports[0])
	if err != nil {
		return nil, "", err
	}
	if store, err = startProcess(dir, nil, b.redis, "--bind", host, "--port", port, "--save", "", "--appendonly", "no", "--dir", dir); err != nil {
		return nil, "", err
	}
	if err := store.ready(ctx, ports[0]); err != nil {
		store.stop()
		return nil, "", err
	}
	return store, ports[0], nil
}
