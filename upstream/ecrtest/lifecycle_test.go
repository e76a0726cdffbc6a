package ecrtest_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"dray/upstream/ecrtest"
)

func day(n int) time.Duration { return time.Duration(n) * 24 * time.Hour }

// rule returns a rule; the strings are the members of selection and action as JSON.
func rule(priority int, selection, action string) string {
	return fmt.Sprintf(`{"rulePriority":%d,"description":"%s","selection":{%s},"action":{%s}}`, priority, strings.Repeat("x", 60), selection, action)
}

const (
	expire  = `"type":"expire"`
	archive = `"type":"transition","targetStorageClass":"archive"`
)

func setLifecycle(r *rig, rules ...string) answer {
	return r.api("PutLifecyclePolicy", map[string]string{"repositoryName": "team/app", "lifecyclePolicyText": `{"rules":[` + strings.Join(rules, ",") + `]}`})
}

// Source: ECR guide, lifecycle_policy_parameters. Three images are pushed on three days, the last
// one without a tag. On the third day the oldest one is pulled. left are the images ten days later,
// oldest first: + is active, ~ archived, and - gone.
func TestLifecycle(t *testing.T) {
	for name, tc := range map[string]struct {
		rules []string
		left  string
	}{
		"by number":              {[]string{rule(1, `"tagStatus":"any","countType":"imageCountMoreThan","countNumber":2`, expire)}, "-++"},
		"untagged, by push":      {[]string{rule(1, `"tagStatus":"untagged","countType":"sinceImagePushed","countUnit":"days","countNumber":5`, expire)}, "++-"},
		"tagged, by push":        {[]string{rule(1, `"tagStatus":"tagged","tagPrefixList":["v"],"countType":"sinceImagePushed","countUnit":"days","countNumber":12`, expire)}, "-++"},
		"all patterns have to":   {[]string{rule(1, `"tagStatus":"tagged","tagPatternList":["v*","*-rc"],"countType":"sinceImagePushed","countUnit":"days","countNumber":1`, expire)}, "+-+"},
		"by pull":                {[]string{rule(1, `"tagStatus":"any","countType":"sinceImagePulled","countUnit":"days","countNumber":11`, expire)}, "+-+"},
		"by pull, to archive":    {[]string{rule(1, `"tagStatus":"any","countType":"sinceImagePulled","countUnit":"days","countNumber":11`, archive)}, "+~+"},
		"the first rule selects": {[]string{rule(2, `"tagStatus":"any","countType":"sinceImagePushed","countUnit":"days","countNumber":1`, expire), rule(1, `"tagStatus":"tagged","tagPrefixList":["v"],"countType":"imageCountMoreThan","countNumber":1`, expire)}, "-+-"},
		"nothing is due":         {[]string{rule(1, `"tagStatus":"any","countType":"sinceImagePushed","countUnit":"days","countNumber":50`, expire)}, "+++"},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, ecrtest.Options{TokenLife: day(1000)})
			r.CreateRepository("team/app")
			setLifecycle(r, tc.rules...).want(t, http.StatusOK, "", "")
			var images []digest.Digest
			for i, tag := range []string{"v1", "v2-rc", ""} {
				raw := r.manifest("team/app", fmt.Sprint("layer ", i))
				d := digest.FromBytes(raw)
				r.putManifest("team/app", tag+strings.Repeat(d.String(), 1-min(len(tag), 1)), raw, v1.MediaTypeImageManifest).want(t, http.StatusCreated, "", "")
				images = append(images, d)
				if i < 2 {
					r.Advance(day(1))
				}
			}
			r.get("/v2/team/app/manifests/v1") // it may be gone
			r.Advance(day(10))
			left := ""
			for i, d := range images {
				img, ok := r.Image("team/app", d.String())
				left += map[bool]string{false: "-", true: map[bool]string{false: "+", true: "~"}[img.Archived]}[ok]
				if layer := digest.FromString(fmt.Sprint("layer ", i)); r.HasBlob("team/app", layer) != ok {
					t.Errorf("image %d is there: %t; its layer: %t", i, ok, !ok)
				}
			}
			if left != tc.left {
				t.Errorf("left: %s, want %s", left, tc.left)
			}
		})
	}
}

// Source: ECR guide, archive-image: what was archived is deleted by the time since then, after 90
// days at least; a push restores it.
func TestLifecycleOfTheArchive(t *testing.T) {
	r := start(t, ecrtest.Options{TokenLife: day(1000)})
	_, raw := r.image("team/app", "v1", "layer")
	d := digest.FromBytes(raw).String()
	setLifecycle(r, rule(1, `"tagStatus":"any","countType":"sinceImagePulled","countUnit":"days","countNumber":30`, archive),
		rule(2, `"tagStatus":"any","storageClass":"archive","countType":"sinceImageTransitioned","countUnit":"days","countNumber":90`, expire)).want(t, http.StatusOK, "", "")
	state := func(there, archived bool) {
		t.Helper()
		if img, ok := r.Image("team/app", d); ok != there || img.Archived != archived {
			t.Errorf("there %t, archived %t; want %t, %t", ok, img.Archived, there, archived)
		}
	}
	r.Advance(day(31))
	state(true, true)
	r.putManifest("team/app", "v1", raw, v1.MediaTypeImageManifest).want(t, http.StatusCreated, "", "")
	state(true, false)
	r.Advance(day(29)) // since it was restored
	state(true, false)
	r.Advance(day(2))
	state(true, true)
	r.Advance(day(89))
	state(true, true)
	r.Advance(day(2))
	state(false, false)
}

// Source: ECR guide, lifecycle policies: what an index names stays, and referrers go with their
// subject.
func TestLifecycleOfFamilies(t *testing.T) {
	r := start(t, ecrtest.Options{TokenLife: day(1000)})
	_, child := r.image("team/app", "v1", "layer")
	index := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromBytes(child), Size: int64(len(child))}}}
	index.SchemaVersion = 2
	raw := marshal(t, index)
	r.putManifest("team/app", "multi", raw, v1.MediaTypeImageIndex).want(t, http.StatusCreated, "", "")
	r.refer("team/app", raw, "application/vnd.example")
	setLifecycle(r, rule(1, `"tagStatus":"any","countType":"sinceImagePushed","countUnit":"days","countNumber":3`, expire)).want(t, http.StatusOK, "", "")
	r.Advance(day(4))
	var left []digest.Digest
	for _, img := range r.Images() {
		left = append(left, img.Digest)
	}
	if !slices.Equal(left, []digest.Digest{digest.FromBytes(child)}) { // the index has gone with its referrer; its child may go next time
		t.Errorf("left: %v", left)
	}
	r.Advance(day(1))
	if n := len(r.Images()); n != 0 {
		t.Errorf("%d images left", n)
	}
}

func TestLifecyclePolicyRefused(t *testing.T) {
	r := start(t, ecrtest.Options{TokenLife: day(1000)})
	r.CreateRepository("team/app")
	good := `"tagStatus":"any","countType":"imageCountMoreThan","countNumber":2`
	for name, rules := range map[string][]string{
		"priorities twice":    {rule(1, good, expire), rule(1, good, expire)},
		"tags of untagged":    {rule(1, `"tagStatus":"untagged","tagPrefixList":["v"],"countType":"imageCountMoreThan","countNumber":2`, expire)},
		"tagged without tags": {rule(1, `"tagStatus":"tagged","countType":"imageCountMoreThan","countNumber":2`, expire)},
		"unit missing":        {rule(1, `"tagStatus":"any","countType":"sinceImagePulled","countNumber":2`, expire)},
		"archive too early":   {rule(1, `"tagStatus":"any","storageClass":"archive","countType":"sinceImageTransitioned","countUnit":"days","countNumber":30`, expire)},
		"no target":           {rule(1, good, `"type":"transition"`)},
		"unknown count":       {rule(1, `"tagStatus":"any","countType":"imageSize","countNumber":2`, expire)},
	} {
		if a := setLifecycle(r, rules...); a.Status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
}
