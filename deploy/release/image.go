package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// nobody is the ID of the container's user. This user owns no files, so the volume /cache is
// writable for every user.
const nobody = 65532

// configuration is the configuration of an image, with the health check that Docker adds to the
// specification (moby, docker-image-spec v1.3).
type configuration struct {
	v1.Image
	Config struct {
		v1.ImageConfig
		Healthcheck healthcheck
	} `json:"config"`
}

type healthcheck struct {
	Test                           []string
	Interval, Timeout, StartPeriod time.Duration // nanoseconds
	Retries                        int
}

// layout is an OCI image layout that is being filled.
type layout struct{ files tree }

func newLayout() layout {
	l := layout{tree{}}
	l.files.add(v1.ImageLayoutFile, []byte(`{"imageLayoutVersion":"`+v1.ImageLayoutVersion+`"}`))
	return l
}

// blob adds a blob and returns its descriptor.
func (l layout) blob(mediaType string, body []byte) v1.Descriptor {
	d := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(body), Size: int64(len(body))}
	l.files.add(blobName(d.Digest), body)
	return d
}

func blobName(d digest.Digest) string { return v1.ImageBlobsDir + "/sha256/" + d.Encoded() }

// object adds a JSON object as a blob.
func (l layout) object(mediaType string, object any) (v1.Descriptor, error) {
	body, err := json.Marshal(object)
	return l.blob(mediaType, body), err
}

// archive returns the layout as a tar archive. The file index.json lists one descriptor: the
// parameter root, with the tag as an annotation.
func (l layout) archive(root v1.Descriptor, tag string, at time.Time) ([]byte, error) {
	if root.Annotations == nil {
		root.Annotations = map[string]string{}
	}
	root.Annotations[v1.AnnotationRefName] = tag
	index, err := json.Marshal(v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{root}})
	if err != nil {
		return nil, err
	}
	l.files.add(v1.ImageIndexFile, index)
	return l.files.tar("", at)
}

// rootfs returns the files of the image for one platform.
func (r *release) rootfs(p platform) tree {
	files := tree{
		// cache is the volume. tmp is for temporary files; a read-only container needs a tmpfs there.
		"cache": {mode: fs.ModeDir | fs.ModeSticky | 0o777},
		"tmp":   {mode: fs.ModeDir | fs.ModeSticky | 0o777},
	}
	files.program("bin/dray", r.programs[p])
	files.add("etc/ssl/certs/ca-certificates.crt", r.authorities)
	files.add("etc/passwd", fmt.Appendf(nil, "dray:x:%d:%[1]d::/:/\n", nobody)) // so that the user of the process has a name
	files.add("usr/share/doc/dray/LICENSE", r.source("LICENSE"))
	files.add("usr/share/doc/dray/"+noticesName, r.notices)
	return files
}

// labels describes the image (annotations of the OCI image specification).
func (r *release) labels() map[string]string {
	return map[string]string{
		v1.AnnotationTitle: "dray", v1.AnnotationDescription: r.summary, v1.AnnotationVersion: r.version,
		v1.AnnotationRevision: r.revision, v1.AnnotationCreated: r.at.Format(time.RFC3339), v1.AnnotationLicenses: "Apache-2.0",
		v1.AnnotationURL: "https://" + r.published,
	}
}

// image adds the image for one platform and returns the descriptor of its manifest.
func (r *release) image(l layout, p platform) (v1.Descriptor, error) {
	plain, err := r.rootfs(p).tar("", r.at)
	if err != nil {
		return v1.Descriptor{}, err
	}
	packed, err := zipped(plain)
	if err != nil {
		return v1.Descriptor{}, err
	}
	c := configuration{Image: v1.Image{
		Created: &r.at, Platform: v1.Platform{OS: p.os, Architecture: p.arch},
		RootFS:  v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(plain)}},
		History: []v1.History{{Created: &r.at, CreatedBy: "make release"}},
	}}
	c.Config.ImageConfig = v1.ImageConfig{
		User: fmt.Sprintf("%d:%[1]d", nobody), Entrypoint: []string{"/bin/dray"}, Cmd: []string{"serve"}, WorkingDir: "/",
		Env:          []string{"PATH=/bin", "HOME=/", "DRAY_CACHE_DIRECTORY=/cache", "container=oci"},
		ExposedPorts: map[string]struct{}{"5000/tcp": {}, "6060/tcp": {}}, Volumes: map[string]struct{}{"/cache": {}}, Labels: r.labels(),
	}
	c.Config.Healthcheck = healthcheck{
		Test: []string{"CMD", "/bin/dray", "health"}, Interval: 30 * time.Second, Timeout: 10 * time.Second, StartPeriod: 30 * time.Second, Retries: 3,
	}
	config, err := l.object(v1.MediaTypeImageConfig, c)
	if err != nil {
		return v1.Descriptor{}, err
	}
	manifest, err := l.object(v1.MediaTypeImageManifest, v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, Config: config,
		Layers: []v1.Descriptor{l.blob(v1.MediaTypeImageLayerGzip, packed)}, Annotations: r.labels(),
	})
	manifest.Platform = &c.Platform
	return manifest, err
}

// images writes several archives. One has the image for all platforms, and is for registries. The
// others have the image for one platform each, and are for `docker load` and `podman load`.
func (r *release) images(platforms []platform) error {
	all := newLayout()
	index := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Annotations: r.labels()}
	for _, p := range platforms {
		one := newLayout()
		d, err := r.image(one, p)
		if err != nil {
			return err
		}
		maps.Copy(all.files, one.files)
		index.Manifests = append(index.Manifests, d)
		if err := r.loadable(one, d, p); err != nil {
			return err
		}
	}
	top, err := all.object(v1.MediaTypeImageIndex, index)
	if err != nil {
		return err
	}
	body, err := all.archive(top, r.version, r.at)
	if err != nil {
		return err
	}
	return r.write(fmt.Sprintf("dray_%s_image.tar", r.version), body)
}

// loadable writes the image for one platform. Docker before version 25 reads the file manifest.json
// in place of the layout.
func (r *release) loadable(l layout, d v1.Descriptor, p platform) error {
	var m v1.Manifest
	if err := json.Unmarshal(l.files[blobName(d.Digest)].body, &m); err != nil {
		return err
	}
	tag := r.published + "/dray:" + r.version
	legacy, err := json.Marshal([]map[string]any{{"Config": blobName(m.Config.Digest), "RepoTags": []string{tag}, "Layers": []string{blobName(m.Layers[0].Digest)}}})
	if err != nil {
		return err
	}
	l.files.add("manifest.json", legacy)
	d.Annotations = map[string]string{"io.containerd.image.name": tag}
	body, err := l.archive(d, r.version, r.at)
	if err != nil {
		return err
	}
	return r.write(fmt.Sprintf("dray_%s_image_%s.tar", r.version, p.arch), body)
}
