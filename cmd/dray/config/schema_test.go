package config

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"strings"
	"testing"

	"dray/upstream/auth"
)

// object is a JSON object.
type object = map[string]any

// schema is the JSON Schema of the configuration file.
func (p prose) schema(t *testing.T) string {
	t.Helper()
	defs := object{}
	p.define(t, defs, "The file", reflect.TypeFor[Config]())
	var b bytes.Buffer
	out := json.NewEncoder(&b)
	out.SetEscapeHTML(false)
	out.SetIndent("", " ")
	if err := out.Encode(object{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"title":   "Configuration of dray",
		"$ref":    "#/$defs/Config",
		"$defs":   defs,
	}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// needs says which keys a section must have. TestSchemaAsDray of cmd/dray compares it with the
// errors of dray about sections that lack a key.
var needs = map[reflect.Type]object{
	reflect.TypeFor[Upstream](): {
		"if":   object{"required": []string{"kind"}, "properties": object{"kind": object{"const": KindLocal}}},
		"then": object{"required": []string{"name"}},
		"else": object{"required": []string{"url"}},
	},
	reflect.TypeFor[Credentials]():     {"dependentRequired": object{"password_file": []string{"username"}, "password_env": []string{"username"}}},
	reflect.TypeFor[UpstreamSavings](): {"dependentRequired": object{"price": []string{"path"}}},
	reflect.TypeFor[BuildCache]():      {"dependentRequired": object{"write_back": []string{"to"}}},
	reflect.TypeFor[Fallback]():        {"required": []string{"upstream"}},
	reflect.TypeFor[Bucket]():          {"required": []string{"url"}},
	reflect.TypeFor[Fleet](): {
		"required": []string{"address", "secret_file"},
		"if":       object{"required": []string{"address"}, "properties": object{"address": object{"type": "string", "pattern": "^(:|0[.]0[.]0[.]0:|\\[::\\]:)"}}},
		"then":     object{"required": []string{"advertise"}},
	},
	reflect.TypeFor[Auth]():                {"required": []string{"name"}},
	reflect.TypeFor[HTPasswd]():            {"required": []string{"file"}},
	reflect.TypeFor[Token]():               {"required": []string{"realm", "service", "issuer"}},
	reflect.TypeFor[Checks]():              {"required": []string{"name"}},
	reflect.TypeFor[BaseImage]():           {"required": []string{"name", "diff_ids"}},
	reflect.TypeFor[CELRule]():             {"required": []string{"name", "expression"}},
	reflect.TypeFor[MetadataRequirement](): {"required": []string{"key"}},
	reflect.TypeFor[Rule](): {
		"required": []string{"actions"},
		"if":       object{"properties": object{"actions": object{"contains": object{"not": object{"enum": []string{"view", "operate"}}}}}},
		"then":     object{"required": []string{"repositories"}},
	},
}

// define adds the schema of a section, and those of the sections within it.
func (p prose) define(t *testing.T, defs object, subject string, section reflect.Type) {
	t.Helper()
	properties := object{}
	def := object{
		"type":                 []string{"object", "null"}, // a key without a value changes nothing
		"description":          strings.ReplaceAll(p.introduction(t, subject, section), "\n", " "),
		"additionalProperties": false,
		"properties":           properties,
	}
	maps.Copy(def, needs[section])
	defs[section.Name()] = def
	for _, k := range p.keys(t, section, "yaml") {
		if k.typ == reflect.TypeFor[auth.Secret]() {
			continue // never in the file
		}
		value := p.valueSchema(t, defs, k.typ)
		value["description"] = k.doc
		properties[k.name] = value
	}
}

// valueSchema returns the schema of a value, and adds the schemas of its sections to defs.
func (p prose) valueSchema(t *testing.T, defs object, typ reflect.Type) object {
	t.Helper()
	if s := scalarSchema(typ); s != nil {
		return s
	}
	switch typ.Kind() {
	case reflect.Pointer:
		return p.valueSchema(t, defs, typ.Elem())
	case reflect.Struct:
		if defs[typ.Name()] == nil {
			p.define(t, defs, "This section", typ)
		}
		ref := object{"$ref": "#/$defs/" + typ.Name()}
		if reflect.PointerTo(typ).Implements(reflect.TypeFor[shorthand]()) {
			return object{"anyOf": []object{{"type": "string"}, ref}}
		}
		return ref
	case reflect.Slice:
		items := p.valueSchema(t, defs, typ.Elem())
		if typ.Elem() == reflect.TypeFor[Rule]() {
			actionsOf(defs)["items"] = object{"enum": actions()}
		}
		return object{"type": []string{"array", "null"}, "items": items}
	case reflect.Map:
		return object{"type": []string{"object", "null"}, "additionalProperties": p.valueSchema(t, defs, typ.Elem())}
	}
	t.Errorf("there is no schema for the type %s", typ)
	return nil
}

// actionsOf returns the schema of the actions of a rule. The actions have no type of their own.
func actionsOf(defs object) object {
	return defs["Rule"].(object)["properties"].(object)["actions"].(object)
}

// scalarSchema is the schema of a single value, or nil if typ is a section, a list or a map. Texts
// may look like numbers in YAML.
func scalarSchema(typ reflect.Type) object {
	text := []string{"string", "number"}
	switch {
	case Words(typ) != nil:
		return object{"enum": Words(typ)}
	case typ == reflect.TypeFor[Bytes]():
		var units []string
		for _, u := range byteUnits() {
			units = append(units, u.suffix)
		}
		return object{"type": []string{"string", "integer"}, "minimum": 0, "pattern": "^ *[0-9]+ *(" + strings.Join(units, "|") + ")? *$"}
	case typ == reflect.TypeFor[Duration]():
		const parts = "(([0-9]+([.][0-9]*)?|[.][0-9]+)(ns|us|µs|ms|s|m|h))+"
		return object{"type": []string{"string", "integer"}, "minimum": 0, "maximum": 0, "pattern": "^([0-9]+d|0|" + parts + ")$"}
	case typ == reflect.TypeFor[Date]():
		return object{"type": "string", "format": "date", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"}
	case isText(typ), typ.Kind() == reflect.String:
		return object{"type": text}
	case typ.Kind() == reflect.Bool:
		return object{"type": "boolean"}
	case typ.Kind() == reflect.Int:
		return object{"type": "integer"}
	case typ.Kind() == reflect.Float64:
		return object{"type": "number"}
	}
	return nil
}
