// Package rules judges an image by the operator's expressions.
//
// The expressions are written in CEL (https://cel.dev). The evaluation of a CEL expression always
// ends, has no side effects, and has a cost that is counted. If the cost exceeds a limit, the
// evaluation is stopped without a result.
package rules

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/ext"

	"dray/mirror/pipeline"
)

// Name of the stage.
const Name = "rules"

// version is increased with every change of the values that expressions see, or of the meaning of
// expressions.
const version = 2

// Bounds of a stage, and of each expression in it.
const (
	maxCost       = 2_000_000 // units of CEL's cost model: some tenths of a second on one processor
	maxRules      = 500
	checkEvery    = 100 // iterations between two checks of ctx
	maxRegexProg  = 2000
	maxExpression = 16 << 10 // bytes
)

// Each is the scope of a rule.
type Each string

// The scopes.
const (
	// EachImage evaluates the rule once for the push. The expression sees the document that describes
	// the image (pipeline.Image) as `image`.
	EachImage Each = "image"
	// EachManifest evaluates the rule once for each manifest of kind [pipeline.KindImage]. The
	// expression sees this manifest as `manifest`, and the document as `image`.
	EachManifest Each = "manifest"
)

// Rule is one expression.
type Rule struct {
	// Name is the name of the rule in findings and metrics: at most 40 lower-case letters, digits, -
	// and _.
	Name string
	// Expression must be true. Its type is bool, or dyn if the type is known only at run time.
	Expression string
	// Each is the scope. Empty means EachImage.
	Each Each
	// Message describes the problem if the expression is false. Fix describes how to solve the
	// problem.
	Message, Fix string
}

// Stage evaluates all rules for an image.
type Stage struct {
	rules    []Rule
	programs []cel.Program
}

var _ pipeline.ImageStage = (*Stage)(nil)

// New compiles rules. The error names every invalid rule.
func New(rules []Rule) (*Stage, error) {
	env, err := cel.NewEnv(
		cel.Variable("image", cel.DynType), cel.Variable("manifest", cel.DynType),
		cel.OptionalTypes(), cel.CrossTypeNumericComparisons(true), ext.Strings(), ext.Sets(), ext.Lists(), ext.TwoVarComprehensions(),
		cel.ParserExpressionSizeLimit(maxExpression), cel.RegexProgramSizeLimit(maxRegexProg),
	)
	if err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	if len(rules) > maxRules {
		return nil, fmt.Errorf("rules: there are %d rules, more than %d", len(rules), maxRules)
	}
	s := &Stage{rules: append([]Rule(nil), rules...)}
	var problems []error
	named := map[string]bool{}
	for i := range s.rules {
		r := &s.rules[i]
		r.Each = cmp.Or(r.Each, EachImage)
		p, err := compile(env, *r)
		if err == nil && named[r.Name] {
			err = errors.New("the name is already used")
		}
		named[r.Name] = true
		if err != nil {
			problems = append(problems, fmt.Errorf("rule %q: %w", r.Name, err))
		}
		s.programs = append(s.programs, p)
	}
	return s, errors.Join(problems...)
}

func compile(env *cel.Env, r Rule) (cel.Program, error) {
	if r.Name == "" || pipeline.RuleName(r.Name) != r.Name {
		return nil, errors.New("not a valid name; use at most 40 lower-case letters, digits, - and _")
	}
	if r.Each != EachImage && r.Each != EachManifest {
		return nil, fmt.Errorf("each must be %q or %q, not %q", EachImage, EachManifest, r.Each)
	}
	ast, issues := env.Compile(r.Expression)
	if err := issues.Err(); err != nil {
		return nil, err
	}
	if t := ast.OutputType(); !t.IsExactType(cel.BoolType) && !t.IsExactType(cel.DynType) {
		return nil, fmt.Errorf("the expression has the type %s, not bool", t)
	}
	return env.Program(ast, cel.CostLimit(maxCost), cel.InterruptCheckFrequency(checkEvery), cel.EvalOptions(cel.OptOptimize))
}

// Name implements pipeline.Stage.
func (s *Stage) Name() string { return Name }

// Revision implements pipeline.Stage.
func (s *Stage) Revision() string { return pipeline.Revision(version, s.rules) }

// CheckImage implements pipeline.ImageStage. If rules cannot be evaluated, it returns their errors,
// and the findings of all other rules.
func (s *Stage) CheckImage(ctx context.Context, img *pipeline.Image) ([]pipeline.Finding, error) {
	doc, err := document(img)
	if err != nil {
		return nil, err
	}
	views, _ := doc["manifests"].([]any)
	var found []pipeline.Finding
	var failed []error
	check := func(i int, manifest any, where pipeline.Place) {
		r := s.rules[i]
		ok, err := holds(ctx, s.programs[i], map[string]any{"image": doc, "manifest": manifest})
		switch {
		case err != nil:
			failed = append(failed, fmt.Errorf("rule %q: %w", r.Name, err))
		case !ok:
			found = append(found, pipeline.Finding{
				Rule: r.Name, What: cmp.Or(r.Message, "the rule is not met: "+strings.Join(strings.Fields(r.Expression), " ")), Fix: r.Fix, Where: where,
			})
		}
	}
	for i, r := range s.rules {
		if r.Each == EachImage {
			check(i, nil, pipeline.Place{})
			continue
		}
		for k, m := range img.Manifests {
			if m.Kind == pipeline.KindImage {
				check(i, views[k], img.Place(m))
			}
		}
	}
	return found, errors.Join(failed...)
}

// holds reports whether an expression is true. Some type errors are found only by the evaluation,
// because the values in the document have the type dyn.
func holds(ctx context.Context, p cel.Program, vars map[string]any) (bool, error) {
	out, _, err := p.ContextEval(ctx, vars)
	if err != nil {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		return false, err
	}
	ok, isBool := out.Value().(bool)
	if !isBool {
		return false, fmt.Errorf("the expression returned a %s, not a bool", out.Type().TypeName())
	}
	return ok, nil
}

// document decodes the JSON view of an image into Go values. Whole numbers become integers.
func document(img *pipeline.Image) (map[string]any, error) {
	raw, err := img.JSON()
	if err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var doc map[string]any
	if err := d.Decode(&doc); err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	return numbers(doc).(map[string]any), nil
}

func numbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64()
		return f
	case map[string]any:
		for k := range v {
			v[k] = numbers(v[k])
		}
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	}
	return v
}
