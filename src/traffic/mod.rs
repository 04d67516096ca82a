//! From the wanted split to a JSON patch for a route, and back.
