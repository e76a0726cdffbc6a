package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"dray/cmd/dray/config"
	"dray/cmd/dray/program"
	"dray/cmd/dray/usage"
	"dray/mirror/pipeline"
	"dray/mirror/pipeline/local"
)

func policyCommand(in *invocation) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Test the configured checks",
		Args:  usage.NoArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "test FILE...",
		Short: "Check the images of test files and compare the findings with the expected ones",
		Long: `test checks images and compares the findings with those that you expect. Run
it after you change the checks, before you start dray with the change. Each FILE
is YAML:

  checks: strict                       # optional if "as" decides, or if there is only one
  tests:
  - name: an image without an owner
    image: fixtures/app.json           # a document of "dray check-image --view",
                                       # oci:DIR[:TAG] or docker-archive:FILE[:TAG]
    as: dray.example.com:5000/team/app:1.2
    findings: [rules/team, names/tag]  # stage/rule of all findings that reject the image
  - name: the same image with an owner
    image: fixtures/clean.json

Paths are relative to the file. A document has no layers, so only the checks of
names and images examine it.

test exits with 0 if all results are as expected, with 4 if some are not, and
with 1 if it could not read a file or check an image.`,
		Example: "  dray policy test --config dray.yaml policy/*.yaml",
		Args:    usage.Between(1, 1000),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := in.load()
			if err != nil {
				return err
			}
			return testPolicies(cmd.Context(), cfg, args, in.stdout)
		},
	})
	return cmd
}

// policyFile is one test file: images, each with its expected findings.
type policyFile struct {
	Checks string       `yaml:"checks"`
	Tests  []policyTest `yaml:"tests"`
}

// policyTest is one image with its expected findings.
type policyTest struct {
	Name     string   `yaml:"name"`
	Image    string   `yaml:"image"`
	As       string   `yaml:"as"`
	Findings []string `yaml:"findings"`
}

func testPolicies(ctx context.Context, cfg config.Config, files []string, out io.Writer) error {
	var errs []error
	good, bad := 0, 0
	for _, name := range files {
		f, err := readPolicy(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for i, t := range f.Tests {
			title := cmp.Or(t.Name, fmt.Sprintf("test %d", i+1))
			r, err := t.judge(ctx, cfg, f.Checks, filepath.Dir(name))
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %s: %w", name, title, err))
				continue
			}
			if problem := t.compare(r); problem != "" {
				bad++
				fmt.Fprintf(out, "FAIL  %s: %s\n%s", name, title, problem)
				continue
			}
			good++
			fmt.Fprintf(out, "ok    %s: %s\n", name, title)
		}
	}
	fmt.Fprintf(out, "%d passed, %d failed\n", good, bad)
	if len(errs) == 0 && bad > 0 {
		return program.ErrRejected
	}
	return errors.Join(errs...)
}

// maxFixture bounds a test file, and a document of dray check-image --view, in bytes.
const maxFixture = 16 << 20

func readPolicy(name string) (policyFile, error) {
	var f policyFile
	raw, err := readBounded(name)
	if err != nil {
		return f, fmt.Errorf("%s: %w", name, err)
	}
	if err := config.ReadYAML(name, raw, &f); err != nil {
		return f, err
	}
	if len(f.Tests) == 0 {
		return f, fmt.Errorf("%s: no tests in the file", name)
	}
	return f, nil
}

func readBounded(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	raw, err := io.ReadAll(io.LimitReader(file, maxFixture+1))
	if err == nil && len(raw) > maxFixture {
		err = fmt.Errorf("file is larger than %d bytes", maxFixture)
	}
	return raw, err
}

// judge returns the report on the test's image.
func (t policyTest) judge(ctx context.Context, cfg config.Config, checks, dir string) (*pipeline.Report, error) {
	kind, path, files := strings.Cut(t.Image, ":")
	if t.Image == "" {
		return nil, errors.New("image is missing")
	}
	if !files {
		return t.judgeView(ctx, cfg, checks, beside(dir, t.Image))
	}
	if kind != "oci" && kind != "docker-archive" {
		return nil, fmt.Errorf("image %q: unknown form; write the file of a document, oci:DIRECTORY or docker-archive:FILE", t.Image)
	}
	from, err := openImage(ctx, cfg, kind+":"+beside(dir, path))
	if err != nil {
		return nil, err
	}
	defer from.close()
	name := from.name
	if t.As != "" {
		if name, err = pushedAs(cfg, t.As); err != nil {
			return nil, err
		}
	}
	p, err := pipelineFor(cfg, checks, name)
	if err != nil {
		return nil, err
	}
	name.Digest = from.root.Digest
	return p.Judge(ctx, pipeline.Subject{Name: name, Manifest: from.root}, local.Contents{Blobs: from.blobs, Pipeline: p})
}

// beside resolves a relative path against dir. It returns an absolute path unchanged.
func beside(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

func (t policyTest) judgeView(ctx context.Context, cfg config.Config, checks, file string) (*pipeline.Report, error) {
	raw, err := readBounded(file)
	if err != nil {
		return nil, err
	}
	var img pipeline.Image
	if err := json.Unmarshal(raw, &img); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if err := img.Check(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if t.As != "" {
		as, err := pushedAs(cfg, t.As)
		if err != nil {
			return nil, err
		}
		img.Upstream, img.Repository, img.Tag = as.Upstream, as.Repository, as.Tag
	}
	p, err := pipelineFor(cfg, checks, pipeline.Name{Upstream: img.Upstream, Repository: img.Repository})
	if err != nil {
		return nil, err
	}
	return p.JudgeView(ctx, &img), nil
}

// compare describes how the findings that reject the image differ from the expected ones, or
// returns "" if they do not differ.
func (t policyTest) compare(r *pipeline.Report) string {
	got := map[string]string{}
	for _, f := range r.Findings {
		if f.Rejects() {
			got[f.Stage+"/"+f.Rule] = f.What
		}
	}
	for _, u := range r.Unknowns {
		if u.Rejects() {
			got[u.Stage+"/unknown"] = u.Why
		}
	}
	var b strings.Builder
	for _, want := range slices.Compact(slices.Sorted(slices.Values(t.Findings))) {
		if _, ok := got[want]; !ok {
			fmt.Fprintf(&b, "      expected, but not found: %s\n", want)
		}
		delete(got, want)
	}
	for _, rule := range slices.Sorted(maps.Keys(got)) {
		fmt.Fprintf(&b, "      found, but not expected: %s: %s\n", rule, got[rule])
	}
	return b.String()
}
