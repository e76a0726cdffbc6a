package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sort"

	"github.com/opencontainers/go-digest"
)

// workload makes traces with a given number of requests. Equal seeds make equal traces.
type workload struct {
	name, about string
	make        func(requests int, seed uint64) *trace
}

func workloads() []workload {
	return []workload{
		{"cluster", "1,500 repositories, 300 nodes that store images, new versions, and pods that move", func(n int, seed uint64) *trace { return clusterTrace(n, seed, false) }},
		{"+ci+scan", "like cluster, plus builds pulled once or twice, and occasional scans of all images", func(n int, seed uint64) *trace { return clusterTrace(n, seed, true) }},
		{"irm", "independent requests (Zipf 0.9); one in seven is the only request for its object", independentTrace},
	}
}

// generator makes objects and requests.
type generator struct {
	*trace
	*rand.Rand
	salt uint64
	most int
}

func newGenerator(requests int, seed uint64) *generator {
	return &generator{&trace{}, rand.New(rand.NewPCG(seed, 0x64726179)), seed, requests}
}

func (g *generator) full() bool { return len(g.requests) >= g.most }

func (g *generator) request(o int32) {
	if !g.full() {
		g.requests = append(g.requests, o)
	}
}

// object makes an object of the given size.
func (g *generator) object(size int64) int32 {
	g.objects = append(g.objects, object{digest.FromString(fmt.Sprint(g.salt, " ", len(g.objects))), size})
	return int32(len(g.objects) - 1)
}

// between draws a size of at least minSize and at most maxSize. The logarithms of the sizes are
// distributed evenly.
func (g *generator) between(minSize, maxSize float64) int64 {
	return int64(minSize * math.Pow(maxSize/minSize, g.Float64()))
}

// layer makes a layer with a size as in registries (Anwar et al., FAST '18): 65 % below 1 MB,
// 80 % below 10 MB, 3 % from 100 MB to 1 GB.
func (g *generator) layer() int32 {
	switch p := g.Float64(); {
	case p < 0.65:
		return g.object(g.between(500, 1e6))
	case p < 0.80:
		return g.object(g.between(1e6, 1e7))
	case p < 0.97:
		return g.object(g.between(1e7, 1e8))
	}
	return g.object(g.between(1e8, 1e9))
}

func (g *generator) layers(n int) []int32 {
	out := make([]int32, n)
	for i := range out {
		out[i] = g.layer()
	}
	return out
}

// zipf draws from 0..n-1, with the probability of i in proportion to (i+1)^-s.
type zipf struct{ sums []float64 }

func newZipf(n int, s float64) zipf {
	z := zipf{make([]float64, n)}
	sum := 0.0
	for i := range z.sums {
		sum += math.Pow(float64(i+1), -s)
		z.sums[i] = sum
	}
	return z
}

func (z zipf) draw(r *rand.Rand) int {
	return sort.SearchFloat64s(z.sums, r.Float64()*z.sums[len(z.sums)-1])
}

// release is one version of an image: a manifest, a configuration, the layers of its base, and its
// own layers.
type release struct {
	manifest, config int32
	base, own        []int32
}

func (i release) parts() []int32 {
	return append(append([]int32{i.config}, i.base...), i.own...)
}

func (g *generator) image(base, own []int32) release {
	return release{g.object(g.between(500, 5e3)), g.object(g.between(2e3, 2e4)), base, own}
}

const (
	repositories = 1500
	bases        = 80
	nodeCount    = 300
	nodeLayers   = 500 // blobs that a node has before it collects garbage
)

// cluster is the state of clusterTrace.
type cluster struct {
	*generator
	bases   [][]int32
	images  []release // the newest release of each repository
	nodes   []map[int32]bool
	popular zipf
}

// clusterTrace simulates a cluster. If withBuilds is true, the cluster also has builds and scans.
func clusterTrace(requests int, seed uint64, withBuilds bool) *trace {
	c := &cluster{generator: newGenerator(requests, seed), popular: newZipf(repositories, 0.9)}
	for range bases {
		c.bases = append(c.bases, c.layers(1+c.IntN(4)))
	}
	baseOf := newZipf(bases, 1)
	for range repositories {
		c.images = append(c.images, c.image(c.bases[baseOf.draw(c.Rand)], c.layers(2+c.IntN(6))))
	}
	for range nodeCount {
		c.nodes = append(c.nodes, map[int32]bool{})
	}
	scan := requests / 8
	for !c.full() {
		if withBuilds && c.Float64() < 0.2 {
			c.build(baseOf)
		}
		if withBuilds && len(c.requests) >= scan {
			c.scan()
			scan += requests / 8
		}
		switch p := c.Float64(); {
		case p < 0.15:
			c.rollOut(c.popular.draw(c.Rand))
		case p < 0.995:
			c.pull(c.IntN(nodeCount), c.images[c.popular.draw(c.Rand)])
		default:
			c.replace(c.IntN(nodeCount))
		}
	}
	return c.trace
}

// rollOut makes a new version, and pulls it on some nodes. Of its layers, only the last one, two or
// three are new.
func (c *cluster) rollOut(repo int) {
	old := c.images[repo]
	own := append([]int32{}, old.own...)
	for i := len(own) - 1 - c.IntN(min(3, len(own))); i < len(own); i++ {
		own[i] = c.layer()
	}
	c.images[repo] = c.image(old.base, own)
	for range 1 + c.IntN(30) {
		c.pull(c.IntN(nodeCount), c.images[repo])
	}
}

// [cluster.pull] requests the manifest, and the blobs that the node does not have.
func (c *cluster) pull(node int, i release) {
	c.request(i.manifest)
	have := c.nodes[node]
	for _, o := range i.parts() {
		if !have[o] {
			have[o] = true
			c.request(o)
		}
	}
	if len(have) > nodeLayers {
		c.collect(node)
	}
}

// collect removes blobs from a node, and keeps only the blobs of images that the node runs. It
// draws these images at random until they have nodeLayers/2 blobs or more.
func (c *cluster) collect(node int) {
	keep := map[int32]bool{}
	for len(keep) < nodeLayers/2 {
		for _, o := range c.images[c.popular.draw(c.Rand)].parts() {
			keep[o] = keep[o] || c.nodes[node][o]
		}
	}
	for o, had := range keep {
		if !had {
			delete(keep, o)
		}
	}
	c.nodes[node] = keep
}

// replace replaces a node with a new node. The new node pulls the images that run on it.
func (c *cluster) replace(node int) {
	c.nodes[node] = map[int32]bool{}
	for range 30 {
		c.pull(node, c.images[c.popular.draw(c.Rand)])
	}
}

// build makes an image, and pulls it once or twice without the layers of its base.
func (c *cluster) build(baseOf zipf) {
	i := c.image(c.bases[baseOf.draw(c.Rand)], c.layers(1+c.IntN(3)))
	for range 1 + c.IntN(2) {
		c.request(i.manifest)
		for _, o := range append([]int32{i.config}, i.own...) {
			c.request(o)
		}
	}
}

// scan reads the current image of every repository.
func (c *cluster) scan() {
	for _, i := range c.images {
		c.request(i.manifest)
		for _, o := range i.parts() {
			c.request(o)
		}
	}
}

// independentTrace makes requests that do not depend on earlier requests.
func independentTrace(requests int, seed uint64) *trace {
	g := newGenerator(requests, seed)
	n := max(10, requests/20)
	all := g.layers(n)
	popular := newZipf(n, 0.9)
	for !g.full() {
		if g.IntN(7) == 0 {
			g.request(g.layer())
			continue
		}
		g.request(all[popular.draw(g.Rand)])
	}
	return g.trace
}
