package main

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cmd/dray/config"
	"dray/cmd/dray/services"
	"dray/cmd/dray/watched"
	"dray/mirror/pipeline"
	"dray/mirror/pipeline/attestations"
	imagebase "dray/mirror/pipeline/base"
	"dray/mirror/pipeline/clamd"
	"dray/mirror/pipeline/metadata"
	imagenames "dray/mirror/pipeline/names"
	"dray/mirror/pipeline/rules"
	"dray/mirror/pipeline/runtime"
	"dray/mirror/pipeline/scanner"
	"dray/mirror/pipeline/secrets"
	"dray/mirror/pipeline/shape"
	"dray/mirror/pipeline/webhook"
)

// defaultExecTime is the time that an exec stage has for an image if its `within` is not set. The
// time is shorter than 30 s, so that dray can still answer a client that gives up after 30 s.
const defaultExecTime = config.Duration(20 * time.Second)

// stages collects the steps of a pipeline, and the errors from making them.
type stages struct {
	baseImages imagebase.Catalogue // recorded base images; nil means none
	files      watched.Source      // reads the secrets of services and programs
	steps      []pipeline.Step
	errs       []error
}

// add appends a stage, unless its mode is off. key is the configuration key of c.Within, or empty
// if c.Within has no key.
func (s *stages) add(c config.StageSettings, key string, stage func() (pipeline.Stage, error)) {
	if !c.Mode.On() {
		return
	}
	made, err := stage()
	if err != nil {
		s.errs = append(s.errs, splitErrors(err)...)
		return
	}
	s.steps = append(s.steps, pipeline.Step{Stage: made, Mode: pipeline.Mode(c.Mode), OnError: pipeline.OnError(c.OnError), Within: c.Within.Std(), Key: key})
}

// stepsOf returns the stages of the checks, cheapest first. baseImages are the recorded base
// images; nil means none.
func stepsOf(c config.Checks, baseImages imagebase.Catalogue, source watched.Source) ([]pipeline.Step, error) {
	s := &stages{baseImages: baseImages, files: source}
	s.names(c.Names)
	s.shape(c.Shape)
	s.metadata(c.Metadata)
	s.runtime(c.Runtime)
	s.base(c.Base)
	s.attestations(c.Attestations)
	s.rules(c.Rules)
	s.secrets(c.Secrets)
	s.clamd(c.Clamd)
	for _, w := range c.Webhooks {
		s.webhook(w)
	}
	for _, e := range c.Exec {
		s.exec(e)
	}
	return s.steps, errors.Join(s.errs...)
}

// splitErrors returns the errors that were joined into err.
func splitErrors(err error) []error {
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		return j.Unwrap()
	}
	return []error{err}
}

func (s *stages) names(c config.NamesCheck) {
	s.add(config.StageSettings{Mode: c.Mode, OnError: c.OnError}, "", func() (pipeline.Stage, error) {
		return imagenames.New(imagenames.Config{
			Repositories: c.Repositories, Tags: c.Tags, Semver: c.Semver, Forbidden: c.ForbiddenTags, Immutable: c.ImmutableTags, Except: c.MutableTags,
		})
	})
}

func (s *stages) shape(c config.ShapeCheck) {
	s.add(config.StageSettings{Mode: c.Mode, OnError: c.OnError}, "", func() (pipeline.Stage, error) {
		if min(int64(c.MaxBytes), int64(c.MaxLayerBytes), int64(c.MaxUncompressed), int64(c.MaxLayers), int64(c.MaxManifestBytes)) < 0 {
			return nil, errors.New("shape: a limit is negative")
		}
		return shape.New(shape.Config{
			MaxBytes: int64(c.MaxBytes), MaxLayerBytes: int64(c.MaxLayerBytes), MaxUncompressed: int64(c.MaxUncompressed), MaxLayers: c.MaxLayers, MaxManifestBytes: int64(c.MaxManifestBytes),
			Required: c.RequiredPlatforms, Platforms: c.Platforms, MediaTypes: c.MediaTypes, Foreign: c.ForeignLayers,
		}), nil
	})
}

func (s *stages) metadata(c config.MetadataCheck) {
	s.add(config.StageSettings{Mode: c.Mode}, "", func() (pipeline.Stage, error) {
		if len(c.Required) == 0 {
			return nil, errors.New("metadata: no requirement is set")
		}
		required := make([]metadata.Requirement, len(c.Required))
		for i, r := range c.Required {
			required[i] = metadata.Requirement(r)
		}
		return metadata.New(metadata.Config{Required: required})
	})
}

func (s *stages) runtime(c config.RuntimeCheck) {
	s.add(config.StageSettings{Mode: c.Mode, OnError: c.OnError}, "", func() (pipeline.Stage, error) {
		if !c.NonRoot && !c.SecretVariables && len(c.Ports) == 0 && !c.SetUID && !c.AddFromURL {
			return nil, errors.New("runtime: no requirement is set")
		}
		return runtime.New(runtime.Config{
			NonRoot: c.NonRoot, Environment: c.SecretVariables, Harmless: c.HarmlessVariables, Ports: c.Ports, SetUID: c.SetUID, SetUIDAllowed: c.SetUIDAllowed, AddFromURL: c.AddFromURL,
		})
	})
}

func (s *stages) base(c config.BaseCheck) {
	s.add(c.StageSettings, "base.within", func() (pipeline.Stage, error) {
		images := make([]imagebase.Image, len(c.Images))
		for i, img := range c.Images {
			images[i] = imagebase.Image{Name: img.Name}
			for _, d := range img.DiffIDs {
				images[i].DiffIDs = append(images[i].DiffIDs, digest.Digest(d))
			}
		}
		return imagebase.New(imagebase.Config{
			Allowed: c.Allowed, Unknown: c.Unknown == config.UnknownPass, Scratch: c.Scratch, Materials: c.Materials, Images: images,
		}, s.baseImages)
	})
}

func (s *stages) attestations(c config.AttestationsCheck) {
	s.add(c.StageSettings, "attestations.within", func() (pipeline.Stage, error) {
		if !c.Provenance && !c.SBOM && len(c.Builders) == 0 && len(c.Sources) == 0 {
			return nil, errors.New("attestations: no requirement is set")
		}
		return attestations.New(attestations.Config{Provenance: c.Provenance, SBOM: c.SBOM, Builders: c.Builders, Sources: c.Sources}), nil
	})
}

func (s *stages) rules(c config.RulesCheck) {
	s.add(c.StageSettings, "rules.within", func() (pipeline.Stage, error) {
		list := make([]rules.Rule, len(c.Rules))
		for i, r := range c.Rules {
			list[i] = rules.Rule{Name: r.Name, Expression: r.Expression, Each: rules.Each(r.Each), Message: r.Message, Fix: r.Fix}
		}
		return rules.New(list)
	})
}

func (s *stages) secrets(c config.SecretsCheck) {
	s.add(c.StageSettings, "secrets.within", func() (pipeline.Stage, error) {
		return secrets.New(secrets.Config{Without: c.Without, MaxFileBytes: int64(c.MaxFile)})
	})
}

func (s *stages) clamd(c config.ClamdCheck) {
	s.add(c.StageSettings, "clamd.within", func() (pipeline.Stage, error) {
		return clamd.New(clamd.Config{Address: c.Address, MaxFileBytes: int64(c.MaxFile), Rescan: c.Rescan.Std()})
	})
}

func (s *stages) webhook(c config.WebhookCheck) {
	s.add(c.StageSettings, "webhooks.within", func() (pipeline.Stage, error) {
		service, err := services.Of(c.Service, s.files)
		if err != nil {
			return nil, fmt.Errorf("webhook: %w", err)
		}
		return webhook.New(webhook.Config{Name: c.Name, Service: service, Form: webhook.Form(c.Form), Timeout: c.Timeout.Std()})
	})
}

func (s *stages) exec(c config.ExecCheck) {
	c.Within = cmp.Or(c.Within, defaultExecTime)
	s.add(c.StageSettings, "exec.within", func() (pipeline.Stage, error) {
		if c.Refuses < 0 || c.Refuses > 255 {
			return nil, fmt.Errorf("exec: %d is not an exit code", c.Refuses)
		}
		environment, err := services.Variables(c, s.files)
		if err != nil {
			return nil, fmt.Errorf("exec: %w", err)
		}
		return scanner.New(scanner.Config{
			Name: c.Name, Command: c.Command, Environment: environment, Refuses: c.Refuses, Timeout: c.Within.Std(), MaxImageBytes: int64(c.MaxImage),
			MemoryBytes: int64(c.Memory), AtOnce: c.AtOnce, Directory: c.Directory, UID: c.UID, GID: c.GID,
		})
	})
}
