package main

import (
	"errors"
	"fmt"
	"time"

	"dray/mirror"
	"dray/mirror/pipeline"
	"dray/mirror/pipeline/attestations"
	imagebase "dray/mirror/pipeline/base"
	"dray/mirror/pipeline/clamd"
	"dray/mirror/pipeline/rules"
	"dray/mirror/pipeline/scanner"
	"dray/mirror/pipeline/secrets"
	"dray/mirror/pipeline/webhook"
)

// defaultExecTime leaves a client that gives up after 30 s time for its answer.
const defaultExecTime = Duration(20 * time.Second)

// stages collects steps, and what is wrong with them.
type stages struct {
	// bases are the images that were learnt; nil knows none.
	bases imagebase.Catalogue
	steps []pipeline.Step
	errs  []error
}

// add puts a stage that is on at the end.
func (s *stages) add(mode CheckMode, onError OnError, within Duration, stage func() (pipeline.Stage, error)) {
	if !mode.on() {
		return
	}
	made, err := stage()
	if err != nil {
		s.errs = append(s.errs, unjoined(err)...)
		return
	}
	s.steps = append(s.steps, pipeline.Step{Stage: made, Mode: pipeline.Mode(mode), OnError: pipeline.OnError(onError), Within: within.Std()})
}

func (s *stages) err() error { return errors.Join(s.errs...) }

func (c AttestationsCheck) add(s *stages) {
	s.add(c.Mode, c.OnError, c.Within, func() (pipeline.Stage, error) {
		if !c.Provenance && !c.SBOM && len(c.Builders) == 0 && len(c.Sources) == 0 {
			return nil, errors.New("attestations: nothing is asked for")
		}
		return attestations.New(attestations.Config{Provenance: c.Provenance, SBOM: c.SBOM, Builders: c.Builders, Sources: c.Sources, Match: mirror.MatchName}), nil
	})
}

func (c RulesCheck) add(s *stages) {
	s.add(c.Mode, c.OnError, c.Within, func() (pipeline.Stage, error) {
		list := make([]rules.Rule, len(c.Rules))
		for i, r := range c.Rules {
			list[i] = rules.Rule{Name: r.Name, Expression: r.Expression, Each: rules.Each(r.Each), Message: r.Message, Fix: r.Fix}
		}
		return rules.New(list)
	})
}

func (c SecretsCheck) add(s *stages) {
	s.add(c.Mode, c.OnError, c.Within, func() (pipeline.Stage, error) {
		return secrets.New(secrets.Config{Without: c.Without, MaxFileBytes: int64(c.MaxFile)})
	})
}

func (c ClamdCheck) add(s *stages) {
	s.add(c.Mode, c.OnError, c.Within, func() (pipeline.Stage, error) {
		return clamd.New(clamd.Config{Address: c.Address, MaxFileBytes: int64(c.MaxFile), Rescan: c.Rescan.Std()})
	})
}

func (c WebhookCheck) add(s *stages) {
	s.add(c.Mode, c.OnError, c.Within, func() (pipeline.Stage, error) {
		return webhook.New(webhook.Config{
			Name: c.Name, URL: c.URL, Form: webhook.Form(c.Form), Timeout: c.Timeout.Std(), Secret: []byte(c.Secret.Reveal()),
		})
	})
}

func (c ExecCheck) add(s *stages) {
	within := c.Within
	if within == 0 {
		within = defaultExecTime
	}
	s.add(c.Mode, c.OnError, within, func() (pipeline.Stage, error) {
		if c.Refuses < 0 || c.Refuses > 255 {
			return nil, fmt.Errorf("exec: %d is no exit code", c.Refuses)
		}
		return scanner.New(scanner.Config{
			Name: c.Name, Command: c.Command, Environment: c.Environment, Refuses: c.Refuses, Timeout: within.Std(), MaxImageBytes: int64(c.MaxImage),
			MemoryBytes: int64(c.Memory), AtOnce: c.AtOnce, Directory: c.Directory, UID: c.UID, GID: c.GID,
		})
	})
}
