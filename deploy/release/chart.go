package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// semantic matches a semantic version (semver.org) without a plus sign. Helm accepts such a version
// for a chart.
var semantic = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-((0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(\.(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*))?$`)

// chartVersion returns the version of the chart for a version of dray. For a version that is not
// semantic, such as a commit, it returns a version that is lower than all releases.
func chartVersion(version string) string {
	if plain := strings.TrimPrefix(version, "v"); semantic.MatchString(plain) {
		return plain
	}
	return "0.0.0-g" + regexp.MustCompile(`[^0-9A-Za-z-]+`).ReplaceAllString(version, "-")
}

// chart writes the Helm chart, which installs the image of this release.
func (r *release) chart() error {
	files := tree{}
	from := filepath.Join(r.root, "deploy/helm")
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		files.add(filepath.ToSlash(name), []byte(strings.ReplaceAll(string(body), r.documented, r.published)))
		return err
	})
	if err != nil {
		return fmt.Errorf("chart: %w", err)
	}
	version := chartVersion(r.version)
	for line, value := range map[string]string{"version": version, "appVersion": fmt.Sprintf("%q", r.version)} {
		field := regexp.MustCompile(`(?m)^` + line + `: .*$`)
		if !field.Match(files["Chart.yaml"].body) {
			return errors.New("chart: Chart.yaml has no " + line)
		}
		files.add("Chart.yaml", field.ReplaceAll(files["Chart.yaml"].body, []byte(line+": "+value)))
	}
	plain, err := files.tar("dray/", r.at)
	if err != nil {
		return err
	}
	body, err := zipped(plain)
	return errors.Join(err, r.write("dray-"+version+".tgz", body))
}
