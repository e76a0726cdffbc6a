package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
)

const unchecked = "dray without checks"

// checks is the scenario that pushes an image of compressed layers through dray to a stand-in for
// ECR, with checks and without.
func (b *bench) checks(ctx context.Context) error {
	d, ok := b.dray()
	if !ok || b.fakeECR == "" {
		return nil
	}
	const layers = 10
	img, err := newFilesImage("bench/push", "v1", layers, b.plan.Push/layers)
	if err != nil {
		return err
	}
	return eachRound(b.plan.CheckRounds, []peer{{name: dray}, {name: unchecked}}, func(_ int, p peer) error {
		config := pushConfig
		if p.name == dray {
			config = edited(pushConfig, "push: true}", "push: true, checks: [all]}") + checksConfig
		}
		took, err := b.pushThrough(ctx, d, config, img)
		b.results.add(checksWall, p.name, took.Seconds())
		return err
	})
}

// checksConfig has every stage that needs no other service or program, except the stages for base
// images and attestations.
const checksConfig = `
checks:
  - name: all
    names: {mode: enforce, forbidden_tags: [latest]}
    shape: {mode: enforce, max_layers: 100}
    metadata: {mode: enforce, required: [{key: owner}]}
    runtime: {mode: enforce, non_root: true, setuid: true, add_from_url: true}
    secrets: {mode: enforce}
    rules: {mode: enforce, rules: [{name: sized, expression: 'image.manifests.all(m, m.totalSize < 5000000000)'}]}
`

// newFilesImage makes an image of compressed layers. count is the number of layers, and size is the
// approximate size in bytes of each layer after compression.
func newFilesImage(repo, tag string, count int, size int64) (*image, error) {
	var layers []blob
	var diffIDs []string
	for i := range count {
		files, err := newFiles(fmt.Sprintf("%s %s files %d", repo, tag, i), size)
		if err != nil {
			return nil, err
		}
		diffIDs = append(diffIDs, digestOf(files))
		var stored bytes.Buffer
		w, err := gzip.NewWriterLevel(&stored, gzip.BestSpeed)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(files); err != nil {
			return nil, err
		}
		if err := w.Close(); err != nil {
			return nil, err
		}
		layers = append(layers, blob{digestOf(stored.Bytes()), stored.Bytes()})
	}
	config, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux", "config": map[string]any{"User": "1000", "Labels": map[string]string{"owner": "bench"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
	})
	if err != nil {
		return nil, err
	}
	return assemble(repo, tag, blob{digestOf(config), config}, "application/vnd.oci.image.layer.v1.tar+gzip", layers)
}

// fileSize is the size of each file in a layer, in bytes.
const fileSize = 128 << 10

// newFiles makes a tar archive that compresses to about size bytes. Every second file is noise,
// which does not compress. The other files are text, which compresses to about a seventh.
func newFiles(seed string, size int64) ([]byte, error) {
	random := rand.New(rand.NewChaCha8(sha256.Sum256([]byte(seed))))
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	noise, text := newBlob(seed, size), newText(random, 4<<20)
	for at, i := int64(0), 0; at < size; i++ {
		content := text[random.IntN(len(text)-fileSize):][:fileSize]
		if i%2 == 0 {
			content = noise.bytes[at:min(at+fileSize, size)]
			at += int64(len(content)) + fileSize/7
		}
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("opt/bench/%04d", i), Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
			return nil, err
		}
		if _, err := w.Write(content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return archive.Bytes(), nil
}

// newText makes lines that look like code.
func newText(random *rand.Rand, size int) []byte {
	words := strings.Fields("func return if err != nil { } ctx context.Context string := range the of and to value key = https://example.com/a/b import class self. def 0 1 2 true [] () => // # token")
	var b bytes.Buffer
	for b.Len() < size {
		for range 4 + random.IntN(9) {
			b.WriteString(words[random.IntN(len(words))])
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%x\n", random.Uint32())
	}
	return b.Bytes()
}
