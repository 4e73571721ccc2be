"""What the proxy's pass-through is compared with: nginx, and a streaming proxy of aiohttp on uvloop."""
