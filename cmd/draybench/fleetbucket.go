package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// rangedGETs names a client that fetches ranges from the bucket, without a cache.
const rangedGETs = "ranged GETs"

// The credentials of the bucket, which exists only for this run.
const (
	bucketUser   = "bench"
	bucketSecret = "benchbench"
)

// bucketPiece is the length, in bytes, of the ranges that the client rangedGETs fetches.
// bucketStreams is how many ranges this client fetches at a time. A member fetches the same number
// at a time: 3 layers, each by 4 requests.
const (
	bucketPiece   = 8 << 20
	bucketStreams = 12
)

// fleetBucket measures a new member, whose cache is empty, in place of one that has lost its cache.
// The bucket has the image, and sends it at a limited rate.
func (b fleets) fleetBucket(ctx context.Context, line shape) error {
	if b.gateway == "" {
		return nil
	}
	img, err := newImage("bench/bucket", "v1", b.plan.FleetLayers, b.plan.FleetLayer/2)
	if err != nil {
		return err
	}
	line.Total = 0 // so that the first member fills the bucket as fast as it can
	o, err := openOrigin(line, img)
	if err != nil {
		return err
	}
	defer o.close()
	dir, way, stop, err := b.startGateway(ctx)
	if err != nil {
		return err
	}
	defer stop()
	f, err := b.fleetOf(ctx, 1, o, fleetSetup{bucket: fmt.Sprintf("bucket: {url: \"s3://shared/bench\", endpoint: \"http://%s\", path_style: true, region: eu-west-1}\n", way.address)})
	if err != nil {
		return err
	}
	defer f.stop()
	if _, err := b.loader.pull(ctx, f.running[0].plain, img, b.plan.Pulls); err != nil {
		return err
	}
	keys, err := b.bucketKeys(ctx, dir, len(img.layers)+2)
	if err != nil {
		return err
	}
	idle := startIdle()
	empty, err := f.add(ctx)
	if err != nil {
		return err
	}
	before := o.counts()
	f.running[0].stop() // so that only the bucket and the origin have the image
	got, err := b.loader.pull(ctx, empty.plain, img, b.plan.Pulls)
	if err != nil {
		return err
	}
	asked := o.counts().since(before)
	wall, err := rangedClient(ctx, way.address, keys)
	if err != nil {
		return err
	}
	b.results.add(emptiedBytes, dray, float64(asked.Bytes)/float64(img.size()))
	if b.valid(idle) {
		b.results.add(emptiedRate, dray, float64(img.size())/1e6/got.Whole.Seconds())
		b.results.add(emptiedRate, rangedGETs, float64(img.size())/1e6/wall.Seconds())
	}
	return nil
}

// startGateway starts a store with an empty bucket, whose name is "shared", and a road with a
// limited rate to the store. dir is the directory of the bucket's objects.
func (b fleets) startGateway(ctx context.Context) (dir string, way *road, stop func(), err error) {
	parent, err := os.MkdirTemp(b.dir, "bucket")
	if err != nil {
		return "", nil, nil, err
	}
	ports, err := freeAddresses(1)
	if err != nil {
		return "", nil, nil, err
	}
	objects := filepath.Join(parent, "objects")
	dir = filepath.Join(objects, "shared")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", nil, nil, err
	}
	store, err := startProcess(parent, nil, b.gateway, "--port", ports[0], "--access", bucketUser, "--secret", bucketSecret, "--region", "eu-west-1", "--quiet", "--keep-alive", "posix", objects)
	if err != nil {
		return "", nil, nil, err
	}
	if err = store.ready(ctx, ports[0]); err == nil {
		way, err = openRoad(time.Millisecond, &limiter{rate: b.plan.Total})
	}
	if err != nil {
		store.stop()
		return "", nil, nil, err
	}
	way.lead(ports[0])
	return dir, way, func() { way.close(); store.stop() }, nil
}

// bucketKeys waits until a bucket, which is a directory, has n objects, and returns their lengths
// in bytes by key.
func (b fleets) bucketKeys(ctx context.Context, dir string, n int) (map[string]int64, error) {
	for end := time.Now().Add(2 * time.Minute); ; {
		files, err := filepath.Glob(filepath.Join(dir, "bench", "cache", "sha256", "*"))
		if err != nil {
			return nil, err
		}
		if len(files) >= n {
			keys := map[string]int64{}
			for _, file := range files {
				info, err := os.Stat(file)
				if err != nil {
					return nil, err
				}
				key, err := filepath.Rel(dir, file)
				if err != nil {
					return nil, err
				}
				keys[key] = info.Size()
			}
			return keys, nil
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("the bucket has %d objects of %d", len(files), n)
		}
		if err := pause(ctx, time.Now().Add(50*time.Millisecond)); err != nil {
			return nil, err
		}
	}
}

// rangedClient fetches objects by ranges, and returns how long that took.
func rangedClient(ctx context.Context, address string, keys map[string]int64) (time.Duration, error) {
	client := s3.New(s3.Options{
		Region: "eu-west-1", BaseEndpoint: aws.String("http://" + address), UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(bucketUser, bucketSecret, ""),
	})
	type piece struct {
		key      string
		from, to int64
	}
	var pieces []piece
	for key, size := range keys {
		for from := int64(0); from < size; from += bucketPiece {
			pieces = append(pieces, piece{key, from, min(from+bucketPiece, size) - 1})
		}
	}
	queue := make(chan piece, len(pieces))
	for _, p := range pieces {
		queue <- p
	}
	close(queue)
	began, errs := time.Now(), make([]error, bucketStreams)
	var working sync.WaitGroup
	for i := range bucketStreams {
		working.Go(func() {
			for p := range queue {
				out, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String("shared"), Key: &p.key, Range: aws.String(fmt.Sprintf("bytes=%d-%d", p.from, p.to))})
				if err == nil {
					_, err = io.Copy(io.Discard, out.Body)
					_ = out.Body.Close()
				}
				if err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	working.Wait()
	return time.Since(began), errors.Join(errs...)
}
