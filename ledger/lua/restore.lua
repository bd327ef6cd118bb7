#!lua flags=allow-oom
-- Rebuild: fill an emptied partition from MongoDB by absolute values, many records a call. Nothing is held meanwhile.
-- KEYS 1 meta  2.. records, of one partition
-- ARGV 1 term, then of each record its kind, how many words follow, and these:
--      money: grant number, credited, spent, and perhaps a policy   policy: version, field, value ..
--      counters: field, value ..   line: its record (prelude_line)
--      mark: S|X, charge, shortfall (sums over the request's events)
-- {OK}  {TERM}: a later leader has taken over  {FENCED}: only while the partition is being rebuilt
local m = redis.call('HMGET', KEYS[1], 'server', 'state', 'term')
if m[1] ~= server() or m[2] ~= 'rebuild' then return {'FENCED'} end
if m[3] ~= ARGV[1] then return {'TERM'} end
local starts, before, at = {}, {}, 2
for i = 2, #KEYS do -- a wrong form or type fails here, before the first write
  local kind, n = ARGV[at], whole(ARGV[at + 1] or '')
  if not n or at + 1 + n > #ARGV then return redis.error_reply('EARG') end
  if kind == 'money' then
    for j = at + 2, at + 4 do if not string.find(ARGV[j] or '', '^%d+$') then return redis.error_reply('EARG') end end
    if n > 3 and not (whole(ARGV[at + 5]) and readable(at + 6, at + 1 + n)) then return redis.error_reply('EARG') end
  elseif kind == 'mark' then
    if not (whole(ARGV[at + 3]) and whole(ARGV[at + 4])) then return redis.error_reply('EARG') end
  elseif kind == 'line' then
    if #(ARGV[at + 2] or '') ~= LINE_BYTES then return redis.error_reply('EARG') end
  elseif kind ~= 'counters' and not (kind == 'policy' and whole(ARGV[at + 2]) and readable(at + 3, at + 1 + n)) then
    return redis.error_reply('EARG')
  end
  before[i] = kind == 'mark' and {select(3, kept(KEYS[i]))} or kind == 'line' and {redis.call('GET', KEYS[i])}
    or redis.call('HMGET', KEYS[i], 'ver', 'grant', 'credited')
  starts[i], at = at, at + 2 + n
end
for i = 2, #KEYS do
  local from, b = starts[i], before[i]
  local kind, last = ARGV[from], from + 1 + tonumber(ARGV[from + 1])
  if kind == 'money' then
    local number, credited = ARGV[from + 2], ARGV[from + 3]
    if tonumber(b[2] or '0') > tonumber(number) then number, credited = b[2], b[3] end -- granted since MongoDB was read
    local f = {'grant', number, 'credited', credited, 'spent', ARGV[from + 4],
      'balance', struct.pack(BALANCE, minus(credited, ARGV[from + 4]), 0, 0, 0, 0)}
    if last > from + 4 and tonumber(ARGV[from + 5]) > tonumber(b[1] or '-1') then
      f[#f + 1] = 'ver'
      for j = from + 5, last do f[#f + 1] = ARGV[j] end
    end
    redis.call('HSET', KEYS[i], unpack(f))
    if #f > 8 then close_gate(KEYS[i]) end
  elseif kind == 'policy' then
    if tonumber(ARGV[from + 2]) > tonumber(b[1] or '-1') then -- else a later version came first
      redis.call('HSET', KEYS[i], 'ver', unpack(ARGV, from + 2, last))
      close_gate(KEYS[i])
    end
  elseif kind == 'counters' then
    redis.call('HSET', KEYS[i], unpack(ARGV, from + 2, last))
  elseif kind == 'line' then
    redis.call('SET', KEYS[i], ARGV[from + 2])
  elseif not b[1] then
    mark(KEYS[i], ARGV[from + 2], ARGV[from + 3], ARGV[from + 4])
  end
end
return {'OK'}
