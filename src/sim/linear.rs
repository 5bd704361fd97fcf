//! Whether what clients saw can be explained by one order.
