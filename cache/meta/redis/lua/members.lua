-- KEYS[1] has the members. Returns the descriptions of those that are alive.
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000000 + tonumber(t[2])
local alive = {}
for _, v in ipairs(redis.call('HVALS', KEYS[1])) do
	local till, text = string.match(v, '^(%d+) (.*)$')
	if till and tonumber(till) >= now then table.insert(alive, text) end
end
return alive
