package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awsecr "github.com/aws/aws-sdk-go-v2/service/ecr"

	"dray/upstream/ecrtest"
)

// Amazon ECR sees a pull of what clients pull here: one GET an interval, and none without a pull or
// after a restart.
func TestBudgetKeepAlive(t *testing.T) {
	ecr, hub := ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()})
	dir, edits := t.TempDir(), []string{"keep_alive: 0s", "keep_alive: 500ms"}
	s := startBefore(t, ecr, hub, dir, edits...)
	seed(t, ecr, "team/app", "v1", 1<<10)
	s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
	spent(t, ecr, kinds{"GetAuthorizationToken": 1, "manifest-get": 1})
	before, _ := ecr.Image("team/app", "v1")
	for range 3 {
		s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
	}
	s.eventually("ECR records a pull", func() bool {
		after, _ := ecr.Image("team/app", "v1")
		return after.LastPull.After(before.LastPull)
	})
	<-time.After(700 * time.Millisecond)
	s.stop()
	spent(t, ecr, kinds{"manifest-get": 1})
	s = startBefore(t, ecr, hub, dir, edits...)
	<-time.After(100 * time.Millisecond)
	s.stop()
	if n := ecr.Count("manifest-get"); n != 0 {
		t.Errorf("%d touches after a restart", n)
	}
}

// A rule of ECR that deletes what nobody pulls spares an image that clients get from the cache, as
// long as dray shows that it is in use.
func TestKeepAliveSparesImagesFromRules(t *testing.T) {
	for every, spared := range map[string]bool{"500ms": true, "0s": false} {
		s := startBefore(t, ecrtest.Start(t, ecrtest.Options{TokenLife: 1000 * time.Hour}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir(), "keep_alive: 0s", "keep_alive: "+every)
		seed(t, s.ecr, "team/app", "v1", 1<<10)
		unpulledGo(t, s.ecr, "team/app", 7)
		pull := func() { s.want(200, "GET", "/v2/team/app/manifests/v1", nil) }
		pull()
		for range 3 {
			s.ecr.Advance(5 * 24 * time.Hour)
			s.ecr.ResetCounters()
			pull()
			if spared {
				s.eventually("ECR is shown that the image is in use", func() bool { return s.ecr.Count("manifest-get") > 0 })
			}
		}
		if _, there := s.ecr.Image("team/app", "v1"); there != spared {
			t.Errorf("keep_alive %s: the image is at ECR: %t", every, there)
		}
		s.stop()
	}
}

// unpulledGo sets a rule by which ECR deletes what was not pulled for some days.
func unpulledGo(t *testing.T, r *ecrtest.Running, repo string, days int) {
	t.Helper()
	text := fmt.Sprintf(`{"rules":[{"rulePriority":1,"description":"what nobody pulls","selection":{"tagStatus":"any","countType":"sinceImagePulled","countUnit":"days","countNumber":%d},"action":{"type":"expire"}}]}`, days)
	api := awsecr.NewFromConfig(aws.Config{Region: "eu-west-1", Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "s", "")},
		func(o *awsecr.Options) { o.BaseEndpoint = &r.APIURL })
	if _, err := api.PutLifecyclePolicy(t.Context(), &awsecr.PutLifecyclePolicyInput{RepositoryName: &repo, LifecyclePolicyText: &text}); err != nil {
		t.Fatal(err)
	}
}

// An image that clients pull here and that ECR has archived is told of once for each keep_alive.
func TestKeepAliveTellsOfArchivedImages(t *testing.T) {
	log := &recording{}
	s := startLogging(t, log, ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir(), "keep_alive: 0s", "keep_alive: 500ms")
	img := seed(t, s.ecr, "team/app", "v1", 1<<10)
	s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
	s.ecr.Archive("team/app", "v1", true)
	s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
	s.eventually("the image is told of", func() bool {
		text := log.String()
		at := strings.Index(text, "does not have an image any more")
		return at >= 0 && strings.Contains(text[at:], "upstream=ecr repository=team/app digest="+img.manifest.Digest.String()+" tag=v1")
	})
}
