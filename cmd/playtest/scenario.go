package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
)

// repository is the repository for the images of the playtest. In a real ECR, the playtest uses no
// other repository.
const repository = "dray-playtest"

// newRepository is missing in the stand-in for ECR, so that dray has to create it for a push. With
// a real ECR, it is not used.
const newRepository = "team/app"

// row is one line of the table.
type row struct {
	operation string
	took      time.Duration
	client    int64   // bytes of bodies between client and registry
	ecr       traffic // requests to ECR, and bytes from it, during the operation
	metered   bool    // whether the field ecr is known: with a real ECR, nobody counts requests that bypass dray
	through   bool    // whether the operation went through dray
	pull      bool
}

// traffic counts the requests to ECR and the bytes from ECR.
type traffic struct{ requests, bytes int64 }

// scenario runs the steps and measures them. After an error, it returns the rows before the error.
func (s *testbed) scenario(ctx context.Context, clients int) ([]row, error) {
	auth, err := s.ecrAccess(ctx)
	if err != nil {
		return nil, err
	}
	images, err := s.images()
	if err != nil {
		return nil, err
	}
	pushed := repository
	if s.control != "" {
		pushed = newRepository
	}
	one, two, three := images[0], images[1], images[2]
	var rows []row
	for _, step := range []struct {
		operation     string
		through, pull bool
		clients       int
		do            func(context.Context, *client) error
	}{
		{"push to ECR itself", false, false, 1, push(repository+":one", one)},
		{"pull from ECR itself", false, true, 1, pull(repository+":one", one)},
		{"push another to ECR itself", false, false, 1, push(repository+":two", two)},
		{"pull through dray, cold", true, true, 1, pull(repository+":one", one)},
		{"pull through dray, warm", true, true, 1, pull(repository+":one", one)},
		{fmt.Sprintf("%d clients at once, cold", clients), true, true, clients, pull(repository+":two", two)},
		{fmt.Sprintf("%d clients at once, warm", clients), true, true, clients, pull(repository+":two", two)},
		{"push through dray", true, false, 1, push(pushed+":three", three)},
		{"the same push again", true, false, 1, push(pushed+":three", three)},
		{"pull what was pushed", true, true, 1, pull(pushed+":three", three)},
	} {
		r, err := s.measure(ctx, step.clients, step.do, func() *client {
			if step.through {
				return s.client()
			}
			return s.direct(auth)
		})
		if err != nil {
			return rows, fmt.Errorf("%s: %w", step.operation, err)
		}
		r.operation, r.through, r.pull = step.operation, step.through, step.pull
		r.metered = step.through || s.control != ""
		rows = append(rows, r)
	}
	return rows, verdict(rows)
}

func push(image string, img v1.Image) func(context.Context, *client) error {
	return func(ctx context.Context, c *client) error { return c.push(ctx, image, img) }
}

func pull(image string, img v1.Image) func(context.Context, *client) error {
	return func(ctx context.Context, c *client) error {
		want, err := img.Digest()
		if err != nil {
			return err
		}
		return c.pull(ctx, image, want)
	}
}

// measure lets n clients call job at the same time. It returns the time until all calls have
// returned, the bytes of these clients, and the traffic of ECR meanwhile.
func (s *testbed) measure(ctx context.Context, n int, job func(context.Context, *client) error, newClient func() *client) (row, error) {
	before, err := s.meter(ctx)
	if err != nil {
		return row{}, err
	}
	var r row
	all := make([]*client, n)
	for i := range all {
		all[i] = newClient()
		defer all[i].close()
	}
	g, working := errgroup.WithContext(ctx)
	began := time.Now()
	for _, c := range all {
		g.Go(func() error { return job(working, c) })
	}
	if err := g.Wait(); err != nil {
		return r, err
	}
	r.took = time.Since(began)
	for _, c := range all {
		r.client += c.transport.received.Load() + c.transport.sent.Load()
	}
	after, err := s.meter(ctx)
	r.ecr = traffic{after.requests - before.requests, after.bytes - before.bytes}
	return r, err
}

// verdict checks the pulls through dray. It returns an error if a cold pull got no bytes from ECR,
// or if a pull that is not cold got more than 1 % of its bytes from ECR.
func verdict(rows []row) error {
	var problems []error
	for _, r := range rows {
		if !r.through || !r.pull {
			continue
		}
		if cold := strings.HasSuffix(r.operation, "cold"); !cold && r.ecr.bytes > r.client/100 {
			problems = append(problems, fmt.Errorf("%s: %d of %d bytes came from ECR again", r.operation, r.ecr.bytes, r.client))
		} else if cold && r.ecr.bytes == 0 {
			problems = append(problems, fmt.Errorf("%s: nothing came from ECR, so it was not cold", r.operation))
		}
	}
	return errors.Join(problems...)
}

// images makes three images from the binaries. The images share no layers.
func (s *testbed) images() ([]v1.Image, error) {
	var images []v1.Image
	for _, label := range []string{"one", "two", "three"} {
		img, err := makeImage(label, s.drayBinary, s.fakeecrBinary, s.drayBinary)
		if err != nil {
			return nil, fmt.Errorf("make image: %w", err)
		}
		images = append(images, img)
	}
	return images, nil
}

// ecrAccess creates the repository if it is missing, and gets a token of ECR. Without dray, every
// client has to do this itself.
func (s *testbed) ecrAccess(ctx context.Context) (authn.Authenticator, error) {
	load := []func(*awsconfig.LoadOptions) error{}
	if s.control != "" {
		load = append(load, awsconfig.WithRegion(s.vars["AWS_REGION"]), awsconfig.WithBaseEndpoint(s.vars["AWS_ENDPOINT_URL_ECR"]),
			awsconfig.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(s.vars["AWS_ACCESS_KEY_ID"], s.vars["AWS_SECRET_ACCESS_KEY"], "")))
	} else {
		load = append(load, awsconfig.WithRegion(regionOf(s.ecrHost)))
	}
	cfg, err := awsconfig.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, fmt.Errorf("find AWS credentials: %w", err)
	}
	api := ecr.NewFromConfig(cfg)
	_, err = api.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: aws.String(repository)})
	if _, exists := errors.AsType[*types.RepositoryAlreadyExistsException](err); err != nil && !exists {
		return nil, fmt.Errorf("create repository %s: %w", repository, err)
	}
	out, err := api.GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		return nil, fmt.Errorf("get a token of ECR: %w", err)
	}
	if len(out.AuthorizationData) == 0 {
		return nil, errors.New("get a token of ECR: the answer holds none")
	}
	pair, err := base64.StdEncoding.DecodeString(aws.ToString(out.AuthorizationData[0].AuthorizationToken))
	if err != nil {
		return nil, fmt.Errorf("get a token of ECR: %w", err)
	}
	user, password, _ := strings.Cut(string(pair), ":")
	return &authn.Basic{Username: user, Password: password}, nil
}

// regionOf returns the region in the host name of an ECR registry, such as
// 123456789012.dkr.ecr.eu-west-1.amazonaws.com, or 123456789012.dkr-ecr.eu-west-1.on.aws for a
// dual-stack endpoint.
func regionOf(host string) string {
	labels := strings.Split(host, ".")
	for i, label := range labels[:len(labels)-1] {
		if kind := strings.TrimSuffix(label, "-fips"); kind == "ecr" || kind == "dkr-ecr" {
			return labels[i+1]
		}
	}
	return ""
}

// meter reads the traffic of ECR so far: from the stand-in or, with a real ECR, from dray's
// metrics.
func (s *testbed) meter(ctx context.Context) (traffic, error) {
	var sum traffic
	if s.control == "" {
		err := get(ctx, "http://"+s.admin+"/metrics", func(body io.Reader) error {
			lines := bufio.NewScanner(body)
			for lines.Scan() {
				series, value, _ := strings.Cut(lines.Text(), " ")
				n, _ := strconv.ParseFloat(value, 64) // comments have no number
				switch metric, _, _ := strings.Cut(series, "{"); metric {
				case "dray_upstream_requests_total":
					sum.requests += int64(n)
				case "dray_upstream_received_bytes_total":
					sum.bytes += int64(n)
				}
			}
			return lines.Err()
		})
		return sum, err
	}
	err := get(ctx, s.control+"/counters", func(body io.Reader) error {
		var counts map[string]struct{ Requests, BytesOut int64 }
		if err := json.NewDecoder(body).Decode(&counts); err != nil {
			return err
		}
		for kind, n := range counts {
			if kind != "cloudwatch-put" {
				sum.requests += n.Requests
				sum.bytes += n.BytesOut
			}
		}
		return nil
	})
	return sum, err
}

func get(ctx context.Context, url string, read func(io.Reader) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s", url, resp.Status)
	}
	return read(resp.Body)
}
