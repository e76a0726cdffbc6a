package ecr

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
)

// Template describes the repositories to create. The zero value allows any name, and uses ECR's
// defaults.
type Template struct {
	// Names are patterns. The whole name of a repository has to match one of them. If there are no
	// patterns, any name is allowed.
	Names []*regexp.Regexp
	// DryRun makes Create refuse, with an error that describes the repository that Create would have
	// created.
	DryRun bool
	// ImmutableTags forbids pushing a tag again with another image.
	ImmutableTags bool
	// ExceptTags are at most five patterns of tags to which the opposite of ImmutableTags applies. In
	// a pattern, * stands for any characters.
	ExceptTags []string
	// ScanOnPush scans every pushed image. The registry's own scanning configuration has priority.
	ScanOnPush bool
	// Encryption is AES256, KMS or KMS_DSSE; empty for ECR's default, AES256. With KMS or KMS_DSSE,
	// KMSKey is the key; empty for the key that AWS manages.
	Encryption types.EncryptionType
	KMSKey     string
	// Tags are the AWS resource tags of the repository.
	Tags map[string]string
	// LifecyclePolicy is the JSON of the rules by which ECR deletes images; empty for none.
	LifecyclePolicy string
	// RepositoryPolicy is the JSON of the policy that gives other accounts rights; empty for none.
	RepositoryPolicy string
}

// allows returns nil if a repository of the given name may be created, and otherwise the reason.
func (t Template) allows(repo string) error {
	if len(t.Names) == 0 {
		return nil
	}
	patterns := make([]string, len(t.Names))
	for i, re := range t.Names {
		// The longest match is the whole name, if the pattern matches the whole name. Anchors around
		// the pattern would not do: after a \Q without \E, the last anchor would be literal text.
		whole := regexp.MustCompile(re.String())
		whole.Longest()
		if at := whole.FindStringIndex(repo); at != nil && at[1]-at[0] == len(repo) {
			return nil
		}
		patterns[i] = re.String()
	}
	return fmt.Errorf("this mirror only creates repositories whose names match %s", strings.Join(patterns, " or "))
}

// mutability returns the value of imageTagMutability.
func (t Template) mutability() types.ImageTagMutability {
	switch {
	case t.ImmutableTags && len(t.ExceptTags) > 0:
		return types.ImageTagMutabilityImmutableWithExclusion
	case t.ImmutableTags:
		return types.ImageTagMutabilityImmutable
	case len(t.ExceptTags) > 0:
		return types.ImageTagMutabilityMutableWithExclusion
	}
	return "" // ECR's default, MUTABLE
}

func (t Template) input(account, repo string) *ecr.CreateRepositoryInput {
	in := &ecr.CreateRepositoryInput{RepositoryName: &repo, ImageTagMutability: t.mutability()}
	if account != "" {
		in.RegistryId = &account
	}
	for _, f := range t.ExceptTags {
		in.ImageTagMutabilityExclusionFilters = append(in.ImageTagMutabilityExclusionFilters, types.ImageTagMutabilityExclusionFilter{
			Filter: aws.String(f), FilterType: types.ImageTagMutabilityExclusionFilterTypeWildcard,
		})
	}
	if t.ScanOnPush {
		in.ImageScanningConfiguration = &types.ImageScanningConfiguration{ScanOnPush: true}
	}
	if t.keyed() {
		in.EncryptionConfiguration = &types.EncryptionConfiguration{EncryptionType: t.Encryption}
		if t.KMSKey != "" {
			in.EncryptionConfiguration.KmsKey = &t.KMSKey
		}
	}
	for _, k := range slices.Sorted(maps.Keys(t.Tags)) {
		in.Tags = append(in.Tags, types.Tag{Key: aws.String(k), Value: aws.String(t.Tags[k])})
	}
	return in
}

// keyed reports whether a key of KMS encrypts the repository.
func (t Template) keyed() bool {
	return t.Encryption != "" && t.Encryption != types.EncryptionTypeAes256
}

// describe summarises the settings, for logs and dry runs.
func (t Template) describe() string {
	words := []string{"tags " + strings.ToLower(cmp.Or(string(t.mutability()), "MUTABLE"))}
	if len(t.ExceptTags) > 0 {
		words[0] += " (" + strings.Join(t.ExceptTags, ", ") + ")"
	}
	if t.ScanOnPush {
		words = append(words, "scan on push")
	}
	if t.keyed() {
		words = append(words, "encrypted by "+string(t.Encryption)+" "+cmp.Or(t.KMSKey, "with the key of AWS"))
	}
	if t.LifecyclePolicy != "" {
		words = append(words, "a lifecycle policy")
	}
	if t.RepositoryPolicy != "" {
		words = append(words, "a repository policy")
	}
	for _, k := range slices.Sorted(maps.Keys(t.Tags)) {
		words = append(words, k+"="+t.Tags[k])
	}
	return strings.Join(words, ", ")
}

const (
	// minPolicy and maxPolicy bound the length of a lifecycle policy in characters (ECR API,
	// PutLifecyclePolicy).
	minPolicy, maxPolicy = 100, 30_720
	// maxRepositoryPolicy bounds the length of a repository policy in characters (ECR API,
	// SetRepositoryPolicy).
	maxRepositoryPolicy = 10_240
	// maxPolicyRules is a quota of ECR (service quotas, "Rules per lifecycle policy").
	maxPolicyRules = 50
	// maxExceptTags bounds the number of exclusion filters, and maxWildcards the number of * in each
	// (ECR API, ImageTagMutabilityExclusionFilter).
	maxExceptTags, maxWildcards = 5, 2
)

// CheckLifecyclePolicy returns an error if it finds a mistake for which ECR would refuse a
// lifecycle policy. It finds typing mistakes, but does not know every rule of AWS.
func CheckLifecyclePolicy(text []byte) error {
	if n := utf8.RuneCount(text); n < minPolicy || n > maxPolicy {
		return fmt.Errorf("has %d characters; a lifecycle policy has from %d to %d", n, minPolicy, maxPolicy)
	}
	var p struct {
		Rules []struct {
			Priority  int             `json:"rulePriority"`
			Selection json.RawMessage `json:"selection"`
			Action    struct {
				Type string `json:"type"`
			} `json:"action"`
		} `json:"rules"`
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return fmt.Errorf("is not the JSON of a lifecycle policy: %w", err)
	}
	if n := len(p.Rules); n == 0 || n > maxPolicyRules {
		return fmt.Errorf("has %d rules; a lifecycle policy has from 1 to %d", n, maxPolicyRules)
	}
	seen := map[int]bool{}
	var errs []error
	for i, r := range p.Rules {
		switch {
		case r.Priority < 1 || seen[r.Priority]:
			errs = append(errs, fmt.Errorf("has rules[%d] without a rulePriority of its own", i))
		case len(r.Selection) == 0:
			errs = append(errs, fmt.Errorf("has rules[%d] without a selection", i))
		case r.Action.Type == "":
			errs = append(errs, fmt.Errorf("has rules[%d] without an action", i))
		}
		seen[r.Priority] = true
	}
	return errors.Join(errs...)
}

// CheckRepositoryPolicy returns an error if it finds a mistake for which ECR would refuse a
// repository policy. It does not know every rule of AWS.
func CheckRepositoryPolicy(text []byte) error {
	if n := utf8.RuneCount(text); n > maxRepositoryPolicy {
		return fmt.Errorf("has %d characters; a repository policy has at most %d", n, maxRepositoryPolicy)
	}
	var p struct {
		Statement json.RawMessage
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return fmt.Errorf("is not the JSON of a repository policy: %w", err)
	}
	var one statement
	var all []statement
	if json.Unmarshal(p.Statement, &one) == nil {
		all = append(all, one)
	} else if json.Unmarshal(p.Statement, &all) != nil || len(all) == 0 {
		return errors.New("has no Statement")
	}
	for i, s := range all {
		if s.Effect != "Allow" && s.Effect != "Deny" || len(s.Principal)+len(s.NotPrincipal) == 0 || len(s.Action)+len(s.NotAction) == 0 {
			return fmt.Errorf("has Statement[%d] without Effect, Principal or Action", i)
		}
	}
	return nil
}

// statement has the parts that every statement of a repository policy needs.
type statement struct {
	Effect                                     string
	Principal, NotPrincipal, Action, NotAction json.RawMessage
}

var exceptTag = regexp.MustCompile(`^[0-9a-zA-Z._*-]{1,128}$`)

// CheckExceptTags returns an error if ECR would refuse Template.ExceptTags.
func CheckExceptTags(patterns []string) error {
	if len(patterns) > maxExceptTags {
		return fmt.Errorf("there are %d patterns, and ECR accepts %d", len(patterns), maxExceptTags)
	}
	for _, p := range patterns {
		if !exceptTag.MatchString(p) || strings.Count(p, "*") > maxWildcards {
			return fmt.Errorf("%q is not a pattern of tags; use letters, digits, '.', '_', '-' and at most %d times '*'", p, maxWildcards)
		}
	}
	return nil
}
