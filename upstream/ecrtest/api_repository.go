package ecrtest

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// view returns a repository in the form of the API.
func (s *Server) view(g *registry, r *repository) map[string]any {
	v := map[string]any{
		"repositoryArn":              g.arn(r.name),
		"registryId":                 g.account,
		"repositoryName":             r.name,
		"repositoryUri":              s.withPort(hostName(g.account, g.region)) + "/" + r.name,
		"createdAt":                  epoch(r.created),
		"imageTagMutability":         r.mutability,
		"imageScanningConfiguration": map[string]bool{"scanOnPush": r.scanOnPush},
		"encryptionConfiguration":    r.encryption,
	}
	if len(r.exclusions) > 0 {
		v["imageTagMutabilityExclusionFilters"] = r.exclusions
	}
	return v
}

func (s *Server) describeRepositories(c apiCall) (any, error) {
	in, err := decode[struct {
		RegistryID string   `json:"registryId"`
		Names      []string `json:"repositoryNames"`
		NextToken  string   `json:"nextToken"`
		MaxResults *int     `json:"maxResults"`
	}](c)
	if err != nil {
		return nil, err
	}
	g, err := s.callRegistry(c, in.RegistryID)
	if err != nil {
		return nil, err
	}
	if err := s.allowed(c, g.arn("*")); err != nil {
		return nil, err
	}
	if len(in.Names) > 100 || len(in.Names) > 0 && (in.NextToken != "" || in.MaxResults != nil) {
		return nil, exception("InvalidParameterException", "Invalid parameter at 'repositoryNames' failed to satisfy constraint: 'at most 100, and without nextToken and maxResults'")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	names, next := in.Names, ""
	if len(names) == 0 {
		seen := slices.DeleteFunc(slices.Sorted(maps.Keys(g.repos)), func(n string) bool { _, ok := g.find(n, s.nowLocked()); return !ok })
		names, next, err = apiPage(seen, in.NextToken, in.MaxResults)
		if err != nil {
			return nil, err
		}
	}
	views := []map[string]any{}
	for _, name := range names {
		r, ok := g.find(name, s.nowLocked())
		if !ok {
			return nil, repositoryNotFound(g, name)
		}
		views = append(views, s.view(g, r))
	}
	return withNext(map[string]any{"repositories": views}, next), nil
}

// apiPage returns one page of sorted names, and the token of the next page. The token of a page is
// the last name of the page before. The API's default size is 100, and its limit is 1000.
func apiPage(names []string, token string, size *int) ([]string, string, error) {
	n := 100
	if size != nil {
		n = *size
	}
	if n < 1 || n > 1000 {
		return nil, "", exception("InvalidParameterException", "Invalid parameter at 'maxResults' failed to satisfy constraint: 'Member must have value less than or equal to 1000'")
	}
	i, found := slices.BinarySearch(names, token)
	if token != "" && found {
		i++
	}
	names = names[i:]
	if len(names) <= n {
		return names, "", nil
	}
	return names[:n], names[n-1], nil
}

func withNext(out map[string]any, next string) map[string]any {
	if next != "" {
		out["nextToken"] = next
	}
	return out
}

type createRepositoryInput struct {
	RegistryID string        `json:"registryId"`
	Name       string        `json:"repositoryName"`
	Tags       []resourceTag `json:"tags"`
	Mutability string        `json:"imageTagMutability"`
	Exclusions []exclusion   `json:"imageTagMutabilityExclusionFilters"`
	Scanning   struct {
		ScanOnPush bool `json:"scanOnPush"`
	} `json:"imageScanningConfiguration"`
	Encryption *encryption `json:"encryptionConfiguration"`
}

func (s *Server) createRepositoryCall(c apiCall) (any, error) {
	in, err := decode[createRepositoryInput](c)
	if err != nil {
		return nil, err
	}
	if err := in.check(); err != nil {
		return nil, err
	}
	g, err := s.callRegistry(c, in.RegistryID)
	if err != nil {
		return nil, err
	}
	if err := s.allowed(c, g.arn(in.Name)); err != nil {
		return nil, err
	}
	r := newRepository(in.Name, newUUID(), s.now())
	r.mutability = orDefault(in.Mutability, "MUTABLE")
	r.exclusions, r.scanOnPush, r.resourceTags = in.Exclusions, in.Scanning.ScanOnPush, in.Tags
	if in.Encryption != nil {
		r.encryption = *in.Encryption
		if r.encryption.Type != "AES256" && r.encryption.Key == "" {
			r.encryption.Key = "arn:aws:kms:" + g.region + ":" + g.account + ":key/" + newUUID()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := g.repos[in.Name]; ok {
		return nil, exception("RepositoryAlreadyExistsException", "The repository with name '%s' already exists in the registry with id '%s'", in.Name, g.account)
	}
	r.visible = s.nowLocked().Add(s.Switches().CreationDelay)
	g.repos[in.Name] = r
	return map[string]any{"repository": s.view(g, r)}, nil
}

// check returns the exception of ECR if the input breaks a constraint of the API.
func (in createRepositoryInput) check() error {
	if len(in.Name) < 2 || len(in.Name) > 256 || !anchoredName.MatchString(in.Name) {
		return exception("InvalidParameterException", "Invalid parameter at 'repositoryName' failed to satisfy constraint: 'must satisfy regular expression '%s''", repositoryName)
	}
	exclusive := strings.HasSuffix(in.Mutability, "_WITH_EXCLUSION")
	switch in.Mutability {
	case "", "MUTABLE", "IMMUTABLE", "MUTABLE_WITH_EXCLUSION", "IMMUTABLE_WITH_EXCLUSION":
	default:
		return exception("InvalidParameterException", "Invalid parameter at 'imageTagMutability' failed to satisfy constraint: 'Member must satisfy enum value set'")
	}
	if len(in.Exclusions) > 5 || (len(in.Exclusions) > 0) != exclusive {
		return exception("InvalidParameterException", "Invalid parameter at 'imageTagMutabilityExclusionFilters' failed to satisfy constraint: '1 to 5 filters, with a mutability that has exclusions'")
	}
	if in.Encryption != nil && !slices.Contains([]string{"AES256", "KMS", "KMS_DSSE"}, in.Encryption.Type) {
		return exception("InvalidParameterException", "Invalid parameter at 'encryptionConfiguration' failed to satisfy constraint: 'Member must satisfy enum value set'")
	}
	if len(in.Tags) > 50 {
		return exception("TooManyTagsException", "A repository can have at most 50 tags")
	}
	return nil
}

func (s *Server) deleteRepository(c apiCall) (any, error) {
	in, err := decode[struct {
		RegistryID string `json:"registryId"`
		Name       string `json:"repositoryName"`
		Force      bool   `json:"force"`
	}](c)
	if err != nil {
		return nil, err
	}
	g, r, err := s.repositoryFor(c, in.RegistryID, in.Name)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(r.images) > 0 && !in.Force {
		return nil, exception("RepositoryNotEmptyException", "The repository with name '%s' in registry with id '%s' cannot be deleted because it still contains images", in.Name, g.account)
	}
	delete(g.repos, in.Name)
	for _, l := range r.layers {
		delete(s.objects, l.object)
	}
	return map[string]any{"repository": s.view(g, r)}, nil
}

type lifecycleInput struct {
	RegistryID string `json:"registryId"`
	Name       string `json:"repositoryName"`
	Text       string `json:"lifecyclePolicyText"`
}

func (s *Server) putLifecyclePolicy(c apiCall) (any, error) {
	in, err := decode[lifecycleInput](c)
	if err != nil {
		return nil, err
	}
	if n := len(in.Text); n < 100 || n > 30720 {
		return nil, exception("InvalidParameterException", "Invalid parameter at 'lifecyclePolicyText' failed to satisfy constraint: 'Member must have length between 100 and 30720'")
	}
	if _, ok := parseLifecycle(in.Text); !ok {
		return nil, exception("InvalidParameterException", "Invalid parameter at 'LifecyclePolicyText' failed to satisfy constraint: 'Lifecycle policy validation failure'")
	}
	g, r, err := s.repositoryFor(c, in.RegistryID, in.Name)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r.lifecycle = in.Text
	return map[string]any{"registryId": g.account, "repositoryName": r.name, "lifecyclePolicyText": in.Text}, nil
}

func (s *Server) getLifecyclePolicy(c apiCall) (any, error) {
	in, err := decode[lifecycleInput](c)
	if err != nil {
		return nil, err
	}
	g, r, err := s.repositoryFor(c, in.RegistryID, in.Name)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.lifecycle == "" {
		return nil, exception("LifecyclePolicyNotFoundException", "Lifecycle policy does not exist for the repository with name '%s' in the registry with id '%s'", r.name, g.account)
	}
	return map[string]any{"registryId": g.account, "repositoryName": r.name, "lifecyclePolicyText": r.lifecycle}, nil
}

type policyInput struct {
	RegistryID string `json:"registryId"`
	Name       string `json:"repositoryName"`
	Text       string `json:"policyText"`
}

// setRepositoryPolicy stores a policy, which has no effect here: see Known differences in the
// package's documentation.
func (s *Server) setRepositoryPolicy(c apiCall) (any, error) {
	in, err := decode[policyInput](c)
	if err != nil {
		return nil, err
	}
	if len(in.Text) > 10240 || !json.Valid([]byte(in.Text)) {
		return nil, exception("InvalidParameterException", "Invalid parameter at 'PolicyText' failed to satisfy constraint: 'Invalid repository policy provided'")
	}
	g, r, err := s.repositoryFor(c, in.RegistryID, in.Name)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r.policy = in.Text
	return map[string]any{"registryId": g.account, "repositoryName": r.name, "policyText": r.policy}, nil
}

func (s *Server) getRepositoryPolicy(c apiCall) (any, error) {
	in, err := decode[policyInput](c)
	if err != nil {
		return nil, err
	}
	g, r, err := s.repositoryFor(c, in.RegistryID, in.Name)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.policy == "" {
		return nil, exception("RepositoryPolicyNotFoundException", "Repository policy does not exist for the repository with name '%s' in the registry with id '%s'", r.name, g.account)
	}
	return map[string]any{"registryId": g.account, "repositoryName": r.name, "policyText": r.policy}, nil
}

func (r *repository) sortedTags(img *image) []string {
	var tags []string
	for t, d := range r.tags {
		if d == img.doc.digest {
			tags = append(tags, t)
		}
	}
	slices.SortFunc(tags, cmp.Compare)
	return tags
}
