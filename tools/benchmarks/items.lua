-- Asks for each id in the file `args[1]` once. After the last: for nothing that is there.
local paths

function init(args)
  paths = io.lines(args[1])
end

function request()
  return wrk.format("GET", "/items/" .. (paths() or "none-left"))
end
