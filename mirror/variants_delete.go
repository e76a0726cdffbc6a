package mirror

import (
	"context"
	"encoding/json"
	"slices"

	"dray/upstream/oci"

	"github.com/opencontainers/go-digest"
)

// maxVariantTags bounds the tags of one image that are remembered for its variants.
const maxVariantTags = 64

// hasVariant remembers under which tags an image has a variant, or is about to: who deletes it by its digest does not name them.
func (m *Mirror) hasVariant(ctx context.Context, v variant) {
	tags := m.variantTags(ctx, v.up, v.repo, v.man.Digest)
	if slices.Contains(tags, v.tag) {
		return
	}
	tags = append(tags, v.tag)
	if raw, err := json.Marshal(tags[max(0, len(tags)-maxVariantTags):]); err == nil {
		m.remade.Remember(ctx, v.man.Digest, "variants", v.up.Name+"/"+v.repo, raw)
	}
}

func (m *Mirror) variantTags(ctx context.Context, up *Upstream, repo string, d digest.Digest) (tags []string) {
	if raw, ok := m.remade.Recall(ctx, d, "variants", up.Name+"/"+repo); ok {
		_ = json.Unmarshal(raw, &tags) // what is not understood is nothing
	}
	return tags
}

// extras are what was still to be made of an image.
type extras struct {
	m        *Mirror
	variants []variant
	verdicts []attachment
}

// dropExtras gives up what is still to be made of an image that is being deleted.
func (m *Mirror) dropExtras(ctx context.Context, up *Upstream, repo string, ref oci.Reference) extras {
	return extras{m,
		m.variants.drop(ctx, func(v variant) bool {
			return v.up == up && v.repo == repo && (v.man.Digest == ref.Digest || v.tag == ref.Tag)
		}),
		m.attachments.drop(ctx, func(a attachment) bool {
			return a.up == up && a.repo == repo && (a.subject.Digest == ref.Digest || a.ref == ref)
		}),
	}
}

// restore has it made all the same.
func (e extras) restore() {
	for _, v := range e.variants {
		e.m.variants.add(v)
	}
	for _, a := range e.verdicts {
		e.m.attachments.add(a)
	}
}

// deleteVariants deletes the variants of an image that was deleted. They are no more than another form of it: what goes wrong is logged alone.
func (m *Mirror) deleteVariants(ctx context.Context, up *Upstream, repo string, ref oci.Reference) {
	tags := []string{ref.Tag}
	if ref.ByDigest() {
		tags = m.variantTags(ctx, up, repo, ref.Digest)
	}
	for _, tag := range tags {
		if !up.Variants.fits(repo, tag) {
			continue
		}
		other := oci.Reference{Tag: tag + up.Variants.TagSuffix}
		d, err := m.deleteVariant(ctx, up, repo, other, ref.Digest)
		if err != nil && !oci.NotFound(err) {
			m.log.Warn("zstd variant of a deleted image not deleted", "upstream", up.Name, "repository", repo, "tag", other.Tag, "error", err)
			continue
		}
		m.forgetTag(ctx, up, repo, other.Tag)
		if d != "" {
			m.forgetManifest(ctx, up, repo, d)
		}
	}
}

// deleteVariant deletes a tag, if dray has made it: of an image of that digest, or of any where that is empty. It returns what the tag pointed to.
func (m *Mirror) deleteVariant(ctx context.Context, up *Upstream, repo string, ref oci.Reference, of digest.Digest) (digest.Digest, error) {
	got, err := up.Source.Manifest(ctx, up.remote(repo), ref, anyManifest)
	if err != nil {
		return "", err
	}
	made := digest.Digest(got.Annotations[annotationVariantOf])
	if made == "" || of != "" && made != of {
		return "", nil
	}
	return got.Digest, up.Deleter.DeleteManifest(ctx, up.remote(repo), ref)
}
