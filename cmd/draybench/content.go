package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
)

const manifestType = "application/vnd.oci.image.manifest.v1+json"

// blob is content with its digest.
type blob struct {
	digest string
	bytes  []byte
}

// newBlob makes a blob of the given size from the output of ChaCha8 for a seed. Its bytes do not
// compress, and are the same on every machine.
func newBlob(seed string, size int64) blob {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8(sha256.Sum256([]byte(seed))).Read(b) // documented never to fail
	return blob{digestOf(b), b}
}

func digestOf(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

// image is a manifest and its blobs: a small configuration, and layers.
type image struct {
	repo, tag string
	manifest  blob
	config    blob
	layers    []blob
}

type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int    `json:"size"`
}

// newImage makes an image with the given number of layers. size is the length of each layer in
// bytes.
func newImage(repo, tag string, count int, size int64) (*image, error) {
	var layers []blob
	for i := range count {
		layers = append(layers, newBlob(fmt.Sprintf("%s %s layer %d", repo, tag, i), size))
	}
	return assemble(repo, tag, newBlob(repo+" "+tag+" config", 1<<10), "application/vnd.oci.image.layer.v1.tar", layers)
}

// assemble makes an image of a configuration and layers. It writes the manifest that names them.
func assemble(repo, tag string, config blob, layerType string, layers []blob) (*image, error) {
	img := &image{repo: repo, tag: tag, config: config, layers: layers}
	doc := struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Config        descriptor   `json:"config"`
		Layers        []descriptor `json:"layers"`
	}{2, manifestType, descriptor{"application/vnd.oci.image.config.v1+json", config.digest, len(config.bytes)}, nil}
	for _, l := range layers {
		doc.Layers = append(doc.Layers, descriptor{layerType, l.digest, len(l.bytes)})
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	img.manifest = blob{digestOf(raw), raw}
	return img, nil
}

// blobs returns all blobs that a client fetches: the configuration, then the layers.
func (img *image) blobs() []blob { return append([]blob{img.config}, img.layers...) }

// size is the number of bytes, without headers, that a cold pull fetches from the origin.
func (img *image) size() int64 {
	n := int64(len(img.manifest.bytes))
	for _, b := range img.blobs() {
		n += int64(len(b.bytes))
	}
	return n
}

func (img *image) byTag() string { return "/v2/" + img.repo + "/manifests/" + img.tag }

func (img *image) byDigest() string { return "/v2/" + img.repo + "/manifests/" + img.manifest.digest }

func (img *image) blob(b blob) string { return "/v2/" + img.repo + "/blobs/" + b.digest }
