package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"time"
)

// million starts dray on a directory with a million blobs. It measures how long it takes until a
// client has a manifest and a layer, and until dray has read the directory. It also measures the
// peak memory until dray has read the directory.
func (b *bench) million(ctx context.Context) error {
	d, ok := b.dray()
	if !ok {
		return nil
	}
	img, err := newImage("bench/million", "v1", 1, 1e6)
	if err != nil {
		return err
	}
	o, err := openOrigin(shape{}, img)
	if err != nil {
		return err
	}
	defer o.close()
	admin, err := freeAddresses(1)
	if err != nil {
		return err
	}
	p := drayWith(d.path, edited(drayConfig, `admin: {address: "off"}`, `admin: {address: "`+admin[0]+`"}`))
	r, err := b.start(ctx, p, o)
	if err != nil {
		return err
	}
	defer r.stop()
	if _, err := b.loader.pull(ctx, r.plain, img, b.plan.Pulls); err != nil {
		return err
	}
	r.processes[0].stop()
	if err := crowdDirectory(ctx, filepath.Join(r.dir, "cache", "content"), b.plan.Blobs); err != nil {
		return err
	}
	for range b.plan.Rounds {
		if err := b.restart(ctx, p, r, img, admin[0]); err != nil {
			return err
		}
	}
	return nil
}

// restart starts dray on its existing directory, and measures what [bench.million] describes.
func (b *bench) restart(ctx context.Context, p peer, r *running, img *image, admin string) error {
	begun := time.Now()
	started, err := startProcess(r.dir, nil, p.path, "serve", "--config", filepath.Join(r.dir, "dray.yaml"))
	if err != nil {
		return err
	}
	defer started.stop()
	if err := started.ready(ctx, r.plain); err != nil {
		return err
	}
	c := b.loader.client(r.plain, false)
	defer c.close()
	for _, path := range []string{img.byTag(), img.blob(img.layers[0])} {
		if _, err := c.get(ctx, path, ""); err != nil {
			return err
		}
	}
	b.results.add(millionFirst, dray, time.Since(begun).Seconds())
	if err := listed(ctx, admin, b.plan.Blobs); err != nil {
		return err
	}
	b.results.add(millionListed, dray, time.Since(begun).Seconds())
	peak, err := started.peak()
	b.results.add(millionPeak, dray, float64(peak)/1e6)
	return err
}

// crowdDirectory writes n blobs of 8 bytes into the directory of a dray that has stopped.
func crowdDirectory(ctx context.Context, dir string, n int) error {
	for shard := range 256 {
		if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256", fmt.Sprintf("%02x", shard)), 0o755); err != nil {
			return err
		}
	}
	workers := 2 * cpus()
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n && errs[w] == nil && ctx.Err() == nil; i += workers {
				blob := binary.BigEndian.AppendUint64(nil, uint64(i))
				hex := fmt.Sprintf("%x", sha256.Sum256(blob))
				// The files are read-only, because dray would first verify blobs with write permission, as
				// after an unclean stop.
				errs[w] = os.WriteFile(dir+"/blobs/sha256/"+hex[:2]+"/"+hex, blob, 0o444)
			}
		})
	}
	wg.Wait()
	return errors.Join(append(errs, ctx.Err())...)
}

var blobsGauge = regexp.MustCompile(`(?m)^dray_disk_blobs (\S+)$`)

// listed waits until dray's metrics report at least n blobs.
func listed(ctx context.Context, admin string, n int) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/metrics", nil)
		if err != nil {
			return err
		}
		a, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(a.Body)
		if err := errors.Join(err, a.Body.Close()); err != nil {
			return err
		}
		if m := blobsGauge.FindSubmatch(text); m != nil {
			if known, err := strconv.ParseFloat(string(m[1]), 64); err != nil || int(known) >= n {
				return err
			}
		}
		if err := pause(ctx, time.Now().Add(20*time.Millisecond)); err != nil {
			return fmt.Errorf("dray does not know all blobs: %w", err)
		}
	}
}
