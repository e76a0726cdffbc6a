package ecrtest

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
)

func (s *Server) getAuthorizationToken(c apiCall) (any, error) {
	in, err := decode[struct {
		RegistryIDs []string `json:"registryIds"`
	}](c)
	if err != nil {
		return nil, err
	}
	if err := s.allowed(c, "*"); err != nil {
		return nil, err
	}
	if len(in.RegistryIDs) > 10 {
		return nil, exception("InvalidParameterException", "Invalid parameter at 'registryIds' failed to satisfy constraint: 'Member must have length less than or equal to 10'")
	}
	if len(in.RegistryIDs) == 0 {
		in.RegistryIDs = []string{accountOf(c.principal, s.opts.Account)}
	}
	data := []map[string]any{}
	for _, id := range in.RegistryIDs {
		expires := s.now().Add(s.opts.TokenLife)
		password := s.issue(&token{principal: c.principal, region: c.region, expires: expires})
		data = append(data, map[string]any{
			"authorizationToken": base64.StdEncoding.EncodeToString([]byte("AWS:" + password)),
			"expiresAt":          epoch(expires),
			"proxyEndpoint":      "https://" + s.withPort(hostName(id, c.region)),
		})
	}
	return map[string]any{"authorizationData": data}, nil
}

// accountSetting is an account setting. Only BLOB_MOUNTING has an effect.
type accountSetting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func (s *Server) putAccountSetting(c apiCall) (any, error) {
	in, err := decode[accountSetting](c)
	if err != nil {
		return nil, err
	}
	allowed := map[string][]string{"BLOB_MOUNTING": {"ENABLED", "DISABLED"}, "BASIC_SCAN_TYPE_VERSION": {"AWS_NATIVE", "CLAIR"}, "REGISTRY_POLICY_SCOPE": {"V1", "V2"}}
	if !slices.Contains(allowed[in.Name], in.Value) {
		return nil, exception("ValidationException", "Invalid account setting '%s' or value '%s'", in.Name, in.Value)
	}
	if err := s.allowed(c, "*"); err != nil {
		return nil, err
	}
	g, err := s.callRegistry(c, "")
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	g.settings[in.Name] = in.Value
	return in, nil
}

func (s *Server) getAccountSetting(c apiCall) (any, error) {
	in, err := decode[accountSetting](c)
	if err != nil {
		return nil, err
	}
	g, err := s.callRegistry(c, "")
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := g.settings[in.Name]
	if !ok {
		return nil, exception("ValidationException", "Invalid account setting '%s'", in.Name)
	}
	return accountSetting{in.Name, v}, nil
}

// repositoryFor checks the IAM denials and finds the registry and repository. s.mu must not be
// held.
func (s *Server) repositoryFor(c apiCall, id, name string) (*registry, *repository, error) {
	g, err := s.callRegistry(c, id)
	if err != nil {
		return nil, nil, err
	}
	if err := s.allowed(c, g.arn(name)); err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := g.find(name, s.nowLocked())
	if !ok {
		return nil, nil, repositoryNotFound(g, name)
	}
	return g, r, nil
}

func repositoryNotFound(g *registry, name string) *wireError {
	return exception("RepositoryNotFoundException", "The repository with name '%s' does not exist in the registry with id '%s'", name, g.account)
}

// asException converts an error of the registry to the API's error with the same meaning.
func asException(err *wireError) *wireError {
	class := "InvalidParameterException"
	switch {
	case err.Code == "TAG_INVALID" && strings.Contains(err.Message, "immutable"):
		class = "ImageTagAlreadyExistsException"
	case err.Code == "MANIFEST_INVALID":
		class = "ImageDigestDoesNotMatchException"
	case strings.HasPrefix(err.Message, "Images with digests"):
		class = "ReferencedImagesNotFoundException"
	case strings.HasPrefix(err.Message, "Layers with digests"):
		class = "LayersNotFoundException"
	case strings.HasSuffix(err.Message, " tags"):
		class = "LimitExceededException"
	}
	return &wireError{Status: http.StatusBadRequest, Code: class, Message: err.Message}
}
